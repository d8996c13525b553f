"""A column of a table, and a cell."""

from typing import Literal, NamedTuple


class Column(NamedTuple):
    """A measured column."""

    heading: str
    kind: Literal["share", "time", "number"]  # a fraction of 1, seconds, or a number with its own unit
    better: Literal["higher", "lower", ""] = ""
    labels: tuple[int, ...] = ()  # whose IoU is averaged; empty for other measures
    part: Literal["base", "added", "all", ""] = ""  # the column of papers that it compares to


class Cell(NamedTuple):
    """A mean over runs."""

    mean: float | None  # None where nothing was measured
    std: float | None = None  # standard deviation (n - 1); None for one run
    best: bool = False  # no ranked row of the column shows a better mean
    difference: float | None = None  # only in rows of published numbers: our mean minus theirs
    values: tuple[float | None, ...] = ()  # of each run of the row, in the order of its seeds
    p: float | None = None  # of the paired t-test against the best; None for too few common seeds, and for the best
    close: bool = False  # the test cannot tell the row from the best


def rounded(column: Column, value: float) -> float:
    """`value` as it is shown, so that rows that look equal rank equal."""
    return round(100 * value, 1) + 0.0 if column.kind == "share" else value
