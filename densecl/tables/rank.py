"""Which values of a column are the best, and which cannot be told from them."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from densecl.tables.columns import Cell, Column, rounded
from densecl.tables.intervals import paired

LEVEL = 0.05
FEWEST = 3  # common seeds: of two, a t-test calls nearly everything close


class Entry(NamedTuple):
    """A row as far as one column is concerned; `units` says what each of the cell's values was measured with."""

    cell: Cell
    units: Sequence[Hashable]
    ranked: bool


def marked(column: Column, entries: Sequence[Entry]) -> list[Cell]:
    """The cells of a column with `best`, `p` and `close` filled in.

    The best row is that with the best mean among the ranked ones; those that look as good when rounded are best too.
    Each other is compared to it by a paired t-test over common seeds, if there are at least `FEWEST`. The level is not
    corrected for the number of rows: with many rows some differ by chance.
    """
    ranked = [entry for entry in entries if entry.ranked and entry.cell.mean is not None]
    if len(ranked) < 2 or not column.better:
        return [entry.cell for entry in entries]
    sign = 1 if column.better == "higher" else -1
    leader = max(ranked, key=lambda entry: sign * (entry.cell.mean or 0.0))
    return [_marked(column, entry, leader) if entry in ranked else entry.cell for entry in entries]


def _marked(column: Column, entry: Entry, leader: Entry) -> Cell:
    assert entry.cell.mean is not None
    assert leader.cell.mean is not None
    best = rounded(column, entry.cell.mean) == rounded(column, leader.cell.mean)
    p = None if entry is leader else _compared(entry, leader)
    return entry.cell._replace(best=best, p=p, close=not best and p is not None and p >= LEVEL)


def _compared(entry: Entry, leader: Entry) -> float | None:
    ours, theirs = (
        {unit: value for unit, value in zip(one.units, one.cell.values, strict=True) if value is not None}
        for one in (entry, leader)
    )
    return paired(ours, theirs) if len(ours.keys() & theirs.keys()) >= FEWEST else None
