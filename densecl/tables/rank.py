"""The best values of a column, and those that a paired test cannot tell from them."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from densecl.tables.columns import Cell, Column, rounded
from densecl.tables.intervals import paired

LEVEL = 0.05
FEWEST = 3  # common seeds: of two, a t-test calls nearly everything close


class Ranked(NamedTuple):
    """A cell of a column, what each of its values was measured with (such as the seed), and if it takes part."""

    cell: Cell
    units: Sequence[Hashable]
    ranked: bool

    def by_unit(self) -> dict[Hashable, float]:
        """The known values by seed."""
        pairs = zip(self.units, self.cell.values, strict=True)
        return {unit: value for unit, value in pairs if value is not None}


def marked(column: Column, cells: Sequence[Ranked]) -> list[Cell]:
    """The cells of a column with `best`, `p` and `close` filled in.

    The best cell has the best mean among the ranked ones; those that look as good when rounded are best too. Each
    other is compared to it by a paired t-test over common seeds, if there are at least `FEWEST`. The level is not
    corrected for the number of rows: with many rows some differ by chance.
    """
    means = [(cell.cell.mean, cell) for cell in cells if cell.ranked and cell.cell.mean is not None]
    if len(means) < 2 or not column.better:
        return [cell.cell for cell in cells]
    sign = 1 if column.better == "higher" else -1
    best_mean, leader = max(means, key=lambda pair: sign * pair[0])
    best_values = leader.by_unit()
    result = []
    for cell in cells:
        mean, p = cell.cell.mean, None
        if not cell.ranked or mean is None:
            result.append(cell.cell)
            continue
        best = rounded(column, mean) == rounded(column, best_mean)
        values = cell.by_unit()
        if cell is not leader and len(values.keys() & best_values.keys()) >= FEWEST:
            p = paired(values, best_values)
        result.append(cell.cell._replace(best=best, p=p, close=not best and p is not None and p >= LEVEL))
    return result
