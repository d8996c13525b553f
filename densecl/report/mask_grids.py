"""The masks of a run as grids: share of weights set to zero, and agreement of every two tasks' masks."""

from typing import TYPE_CHECKING

from densecl.report.gather import Member
from densecl.report.grids import Datum, Grid, Head, Line, percent

if TYPE_CHECKING:  # it takes torch, which a page without masks does not need
    from densecl.finished.inspect_masks import MaskFigures


def shares(member: Member, masks: "MaskFigures") -> Grid:
    """Zeroed share of every layer and of all together."""
    heads = (Head("layer", False), Head("weights"), *(Head(f"{task}, %") for task in masks.tasks))
    lines = [
        Line(member, (Datum(name), Datum(f"{count:,}", count), *(Datum(percent(share), share) for share in zeroed)))
        for name, count, zeroed in (*masks.layers, ("all", *masks.whole))
    ]
    return Grid(heads, tuple(lines))


def agreement(member: Member, masks: "MaskFigures") -> Grid:
    """Share of equal values and kappa of every two tasks."""
    lines = []
    for one, other, matching, kappa in masks.pairs:
        text = "–" if kappa is None else f"{round(kappa, 3) + 0.0:.3f}"
        lines.append(Line(member, (Datum(f"{one}, {other}"), Datum(f"{matching:.3f}", matching), Datum(text, kappa))))
    equal = Head("equal", about="share of weights with equal values")
    kappa = Head("kappa", about="Cohen's kappa: 0 is what independent masks have, 1 is equality")
    return Grid((Head("tasks", False), equal, kappa), tuple(lines))
