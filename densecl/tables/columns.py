"""A column of a table, a cell, and the best cells of a column."""

from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

LEVEL = 0.05
FEWEST = 3  # common seeds: of two, a t-test calls nearly everything close


class Column(NamedTuple):
    """A measured column."""

    heading: str
    kind: Literal["share", "time", "number"]  # a fraction of 1, seconds, or a number with its own unit
    better: Literal["higher", "lower", ""] = ""
    labels: tuple[int, ...] = ()  # whose IoU is averaged; empty for other measures
    part: Literal["base", "added", "all", ""] = ""  # the column of papers that it compares to
    over: str = ""  # the split that it belongs to, where benchmarks stand side by side
    score: tuple[Any, ...] = ()  # of a sequence, as papers' numbers have it: task, name of the score, task learnt last


class Cell(NamedTuple):
    """A mean over runs."""

    mean: float | None  # None where nothing was measured
    std: float | None = None  # standard deviation (n - 1); None for one run
    best: bool = False  # no ranked row of the column shows a better mean
    difference: float | None = None  # only in rows of published numbers: our mean minus theirs
    values: tuple[float | None, ...] = ()  # of each run of the row, in the order of its seeds
    p: float | None = None  # of the paired t-test against the best; None for too few common seeds, and for the best
    close: bool = False  # the test cannot tell the row from the best
    second: bool = False  # the second-best value of the column; only where benchmarks stand side by side

    @property
    def half(self) -> float | None:
        """Half the width of the mean's 95 % interval; None for one run."""
        from densecl.tables.intervals import interval  # scipy

        return interval([value for value in self.values if value is not None])


def rounded(column: Column, value: float) -> float:
    """`value` as it is shown, so that rows that look equal rank equal."""
    return round(100 * value, 1) + 0.0 if column.kind == "share" else value


def marked(
    column: Column, cells: Sequence[Cell], units: Sequence[Sequence[Hashable]], ranked: Sequence[bool]
) -> list[Cell]:
    """The cells of a column with `best`, `p` and `close` filled in.

    The best cell has the best mean among the ranked ones; those that look as good when rounded are best too. Each
    other is compared to it by a paired t-test over common seeds, if there are at least `FEWEST`. The level is not
    corrected for the number of rows: with many rows some differ by chance.

    `units` are what the values of each cell were measured with, such as seeds; `ranked` says which rows take part.
    """
    sign = 1 if column.better == "higher" else -1
    means = [(sign * cell.mean, row) for row, cell in enumerate(cells) if ranked[row] and cell.mean is not None]
    result = list(cells)
    if len(means) < 2 or not column.better:
        return result
    by_unit = [  # an empty cell has no values
        {unit: value for unit, value in zip(own, cell.values, strict=False) if value is not None}
        for own, cell in zip(units, cells, strict=True)
    ]
    from densecl.tables.intervals import paired  # scipy

    best_mean, leader = max(means, key=lambda pair: pair[0])
    for mean, row in means:
        best = rounded(column, sign * mean) == rounded(column, sign * best_mean)
        common = by_unit[row].keys() & by_unit[leader].keys()
        p = paired(by_unit[row], by_unit[leader]) if row != leader and len(common) >= FEWEST else None
        result[row] = cells[row]._replace(best=best, p=p, close=not best and p is not None and p >= LEVEL)
    return result
