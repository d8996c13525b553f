"""Measurements of speed: our forms against named reference forms, in turn in one process, as ratios.

A module a kind, whose `measure(bench, **sizes)` yields a `Row` for each thing measured, or a `Missing` where something
cannot be measured here; its `SMALL` are sizes that take seconds and say nothing about the machine.
"""

KINDS = ("harness", "loader", "index", "losses", "metrics", "inversion", "masking", "checkpoint")
