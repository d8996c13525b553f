"""A column of a table, and a cell."""

from typing import Literal, NamedTuple


class Column(NamedTuple):
    """A measured column: `share` is a fraction of 1, `time` is in seconds, `number` has its own unit.

    Attributes:
        labels: the labels whose IoU is averaged; empty for columns of other measures.
        part: the column of a paper's table that it compares to: base, added or all.
    """

    heading: str
    kind: Literal["share", "time", "number"]
    better: Literal["higher", "lower", ""] = ""
    labels: tuple[int, ...] = ()
    part: Literal["base", "added", "all", ""] = ""


class Cell(NamedTuple):
    """A mean over runs; `mean` is None where nothing was measured.

    Attributes:
        std: standard deviation (n - 1); None for one run.
        best: no ranked row of the column shows a better mean.
        difference: only in rows of published numbers: our mean minus theirs.
        values: of each run of the row, in the order of its seeds.
        p: of the paired t-test against the best row; None where there are too few common seeds, and for the best.
        close: the test cannot tell the row from the best.
    """

    mean: float | None
    std: float | None = None
    best: bool = False
    difference: float | None = None
    values: tuple[float | None, ...] = ()
    p: float | None = None
    close: bool = False


def rounded(column: Column, value: float) -> float:
    """`value` as it is shown, so that rows that look equal rank equal."""
    return round(100 * value, 1) + 0.0 if column.kind == "share" else value
