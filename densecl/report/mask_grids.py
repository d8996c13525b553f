"""The masks of a run as grids: share of weights set to zero, and agreement of every two tasks' masks."""

from pathlib import Path
from typing import NamedTuple

from densecl.report.gather import Member
from densecl.report.grids import Datum, Grid, Head, Line, percent


class MaskFigures(NamedTuple):
    """The masks of one run, in numbers."""

    tasks: tuple[str, ...]
    layers: tuple[tuple[str, int, tuple[float, ...]], ...]  # name, weights, zeroed share of each task; last: all
    pairs: tuple[tuple[str, str, float, float | None], ...]  # two tasks, share of equal values, Cohen's kappa


def mask_figures(folder: Path) -> MaskFigures:
    """The figures of a run's masks, which takes torch.

    Raises:
        RecordError, RunError, DataError: they are damaged, or their run's weights are gone.
    """
    from densecl.finished.inspect_masks import agreements, masks_of
    from densecl.masking.analysis import zeroed, zeroed_in_all

    record, masks = masks_of(folder)
    shares = [zeroed(of_task) for of_task in masks.values()]
    counts = {name: mask.numel() for name, mask in next(iter(masks.values())).items()}
    layers = [(name, count, tuple(share[name] for share in shares)) for name, count in counts.items()]
    layers.append(("all", sum(counts.values()), tuple(map(zeroed_in_all, masks.values()))))
    return MaskFigures(tuple(masks), tuple(layers), tuple(agreements(record, masks)))


def shares(member: Member, masks: MaskFigures) -> Grid:
    """Zeroed share of every layer and of all together."""
    heads = (Head("layer", False), Head("weights"), *(Head(f"{task}, %") for task in masks.tasks))
    lines = [
        Line(member, (Datum(name), Datum(f"{count:,}", count), *(Datum(percent(share), share) for share in zeroed)))
        for name, count, zeroed in masks.layers
    ]
    return Grid(heads, tuple(lines))


def agreement(member: Member, masks: MaskFigures) -> Grid:
    """Share of equal values and kappa of every two tasks."""
    lines = []
    for one, other, matching, kappa in masks.pairs:
        text = "–" if kappa is None else f"{round(kappa, 3) + 0.0:.3f}"
        lines.append(Line(member, (Datum(f"{one}, {other}"), Datum(f"{matching:.3f}", matching), Datum(text, kappa))))
    equal = Head("equal", about="share of weights with equal values")
    kappa = Head("kappa", about="Cohen's kappa: 0 is what independent masks have, 1 is equality")
    return Grid((Head("tasks", False), equal, kappa), tuple(lines))
