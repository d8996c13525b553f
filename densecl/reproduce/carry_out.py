"""A table of a paper carried out: its plan as a sweep, then our numbers beside the paper's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from densecl.records.record import APART
from densecl.reproduce.compare import compare
from densecl.reproduce.plan import Line, TablePlan, lines, published_rows
from densecl.sweep.submit import Ended
from densecl.sweep.sweep import Sweep, carry_out, prepare
from densecl.tables.listing import Listing

SMALL = "small"  # the folder of small runs


class Ready(NamedTuple):
    """A table whose runs may start."""

    plan: TablePlan
    lines: list[Line]
    sweep: Sweep
    small: bool


def prepared(
    plan: TablePlan,
    output: Path,
    *,
    small: bool = False,
    seeds: Sequence[int] = (),
    **options: Any,
) -> Ready:
    """Pair runs with published rows, and check every run; see `densecl.sweep.sweep.prepare` for the options."""
    chosen = plan.made_small() if small else plan
    if seeds:
        chosen = chosen.of_seeds(seeds)
    rows = lines(plan, chosen, published_rows(plan, plan.catalogue))
    return Ready(plan, rows, prepare(chosen, output=output / SMALL if small else output, **options), small)


def repeat(ready: Ready, *, quiet: bool = True) -> tuple[Listing, list[Ended]]:
    """Carry out the runs; the table, and the runs that failed."""
    if ready.small:  # tables of the folder above leave small runs out
        ready.sweep.output.mkdir(parents=True, exist_ok=True)
        (ready.sweep.output / APART).touch()
    result = carry_out(ready.sweep, quiet=quiet)
    return compare(ready.plan, ready.lines, ready.sweep.jobs, ready.small), result.failed
