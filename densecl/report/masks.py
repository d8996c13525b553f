"""The masks of runs as grids: share of weights set to zero, and agreement of every two tasks' masks."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densecl.report.album import Fault
from densecl.report.gather import Benchmark, Member
from densecl.report.grids import Datum, Grid, Head, Line, percent

if TYPE_CHECKING:  # it takes torch, which a page without masks does not need
    from densecl.finished.inspect_masks import MaskFigures


MasksOf = Callable[[Path, Fault], "MaskFigures | None"]  # of the run of a record, if it has masks


def masks(benchmark: Benchmark, masks_of: MasksOf, fault: Fault) -> list[dict[str, Any]]:
    """The grids of one run of each row that has masks."""
    result = []
    for member in benchmark.members if benchmark.is_sequence else ():
        of_run = next(filter(None, (masks_of(run.path, fault) for run in member.runs)), None)
        if of_run is not None:
            result.append(
                {"member": member, "shares": _shares(member, of_run), "agreement": _agreement(member, of_run)}
            )
    return result


def _shares(member: Member, figures: "MaskFigures") -> Grid:
    """Zeroed share of every layer and of all together."""
    heads = (Head("layer", False), Head("weights"), *(Head(f"{task}, %") for task in figures.tasks))
    lines = [
        Line(member, (Datum(name), Datum(f"{count:,}", count), *(Datum(percent(share), share) for share in zeroed)))
        for name, count, zeroed in (*figures.layers, ("all", *figures.whole))
    ]
    return Grid(heads, tuple(lines))


def _agreement(member: Member, figures: "MaskFigures") -> Grid:
    """Share of equal values and kappa of every two tasks."""
    lines = []
    for one, other, matching, kappa in figures.pairs:
        text = "–" if kappa is None else f"{round(kappa, 3) + 0.0:.3f}"
        lines.append(Line(member, (Datum(f"{one}, {other}"), Datum(f"{matching:.3f}", matching), Datum(text, kappa))))
    equal = Head("equal", about="share of weights with equal values")
    kappa = Head("kappa", about="Cohen's kappa: 0 is what independent masks have, 1 is equality")
    return Grid((Head("tasks", False), equal, kappa), tuple(lines))
