"""The best values of a column, and those that a paired test cannot tell from them."""

from collections.abc import Hashable, Sequence

from densecl.tables.columns import Cell, Column, rounded
from densecl.tables.intervals import paired

LEVEL = 0.05
FEWEST = 3  # common seeds: of two, a t-test calls nearly everything close


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
    best_mean, leader = max(means, key=lambda pair: pair[0])
    for mean, row in means:
        best = rounded(column, sign * mean) == rounded(column, sign * best_mean)
        common = by_unit[row].keys() & by_unit[leader].keys()
        p = paired(by_unit[row], by_unit[leader]) if row != leader and len(common) >= FEWEST else None
        result[row] = cells[row]._replace(best=best, p=p, close=not best and p is not None and p >= LEVEL)
    return result
