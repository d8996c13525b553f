"""Speed of our forms against named reference forms, run in turn in one process, as ratios.

A module for each kind: `measure(bench, **sizes)` yields a `Row` for each comparison, or a `Missing` where something
cannot be measured here; its `SMALL` sizes take seconds and say nothing about the machine.
"""

KINDS = (
    "harness",
    "loader",
    "index",
    "losses",
    "fused",
    "metrics",
    "inversion",
    "masking",
    "features",
    "checkpoint",
    "teacher",
    "evaluation",
    "start",
)
