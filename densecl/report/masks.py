"""What masks set to zero and how alike they are, as figures: they are read elsewhere, since that takes tensors."""

from typing import NamedTuple

from densecl.report.gather import Member
from densecl.report.tables import Datum, Grid, Head, Line, percent


class Layer(NamedTuple):
    """A masked weight: its count of numbers and, for each task, the share that is set to 0."""

    name: str
    weights: int
    zeroed: tuple[float, ...]


class Pair(NamedTuple):
    """Agreement of two tasks' masks: share of equal values, and Cohen's kappa (None where it is not defined)."""

    one: str
    other: str
    matching: float
    kappa: float | None


class MaskFigures(NamedTuple):
    """The masks of one run. `whole`: share of all weights that each task sets to 0."""

    tasks: tuple[str, ...]
    layers: tuple[Layer, ...]
    whole: tuple[float, ...]
    pairs: tuple[Pair, ...]


def shares(member: Member, masks: MaskFigures) -> Grid:
    """Zeroed share of every layer and of all together."""
    heads = (Head("layer", False), Head("weights"), *(Head(f"{task}, %") for task in masks.tasks))
    whole = Layer("all", sum(layer.weights for layer in masks.layers), masks.whole)
    lines = [
        Line(
            member,
            "",
            (Datum(one.name), Datum(f"{one.weights:,}", one.weights), *(Datum(percent(z), z) for z in one.zeroed)),
        )
        for one in (*masks.layers, whole)
    ]
    return Grid(heads, tuple(lines))


def agreement(member: Member, masks: MaskFigures) -> Grid:
    """Matching and kappa of every two tasks."""
    lines = [
        Line(
            member,
            "",
            (
                Datum(f"{pair.one}, {pair.other}"),
                Datum(f"{pair.matching:.3f}", pair.matching),
                Datum("–" if pair.kappa is None else f"{round(pair.kappa, 3) + 0.0:.3f}", pair.kappa),
            ),
        )
        for pair in masks.pairs
    ]
    kappa = Head("kappa", about="Cohen's kappa: 0 is what independent masks have, 1 is equality")
    return Grid((Head("tasks", False), Head("equal", about="share of weights with equal values"), kappa), tuple(lines))
