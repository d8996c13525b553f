"""Tables of the page: means with 95 % intervals over seeds, ranked, and tested against the best row."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from densecl.records.layout import ranges
from densecl.report.gather import Benchmark, Member, cell_mean, rank_order
from densecl.tables.columns import Cell, Column
from densecl.tables.forms.text import humanise
from densecl.tables.groupings import grouping
from densecl.tables.intervals import interval
from densecl.tables.table import Row, Table, rows


class Head(NamedTuple):
    """A column's heading; `number` decides how it is sorted and set."""

    text: str
    number: bool = True
    about: str = ""


class Datum(NamedTuple):
    """A cell: what is shown, and what it is sorted by."""

    text: str
    value: float | None = None
    spread: str = ""  # half the interval
    best: bool = False
    close: bool = False  # cannot be told from the best


class Line(NamedTuple):
    """A row of a page's table; `rank` is empty for those that are not ranked."""

    member: Member
    rank: str
    cells: tuple[Datum, ...]


class Grid(NamedTuple):
    """A table of the page."""

    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


def in_view(benchmark: Benchmark, group: str | None = None, per_step: bool = False) -> tuple[Table, list[Row]]:
    """The benchmark's table in another view, and its rows in the order of the members."""
    found = {_key(row): (table, row) for table in rows(benchmark.records, per_step, group=group) for row in table.rows}
    chosen = [found[_key(member.row)] for member in benchmark.members]
    return chosen[0][0], [row for _, row in chosen]


def ranking(benchmark: Benchmark, group: str | None = None) -> Grid:
    """The rows by their mean in one column, highest first; then, without a rank, those that are not compared.

    Args:
        benchmark: what was run on it.
        group: a grouping; it ranks by the column that it adds, else by the mean of all classes.
    """
    table, found = in_view(benchmark, group)
    by = (grouping(group).extra if group else "") or "all"
    headings = [column.heading for column in table.columns]
    ranks = by in headings
    pairs = list(zip(benchmark.members, found, strict=True))
    pairs.sort(key=lambda pair: rank_order(pair[1], table, by))
    backbones = len({row.backbone for row in found}) > 1
    heads = [*([Head("backbone", False)] if backbones else []), Head("seeds"), *map(_head, table.columns)]
    if ranks:
        heads.append(
            Head(f"p, {by}", about=f"two-sided p of the paired t-test over common seeds against the best in {by}")
        )
    lines: list[Line] = []
    for member, row in pairs:
        own = [Datum(row.backbone)] if backbones else []
        cells = [_datum(column, cell) for column, cell in zip(table.columns, row.cells, strict=True)]
        test = [_p(row, row.cells[headings.index(by)])] if ranks else []
        rank = (
            str(sum(line.rank != "" for line in lines) + 1)
            if ranks and row.ranked and cell_mean(row, table, by) is not None
            else ""
        )
        seeds = Datum(ranges(row.seeds), float(len(row.seeds)))
        lines.append(Line(member, rank, (*own, seeds, *cells, *test)))
    return Grid(tuple(heads), tuple(lines), (*table.notes, *_about(found)))


def after_steps(benchmark: Benchmark) -> Grid:
    """The mean of all classes seen so far, after each step."""
    table, found = in_view(benchmark, per_step=True)
    lines = [
        Line(member, "", tuple(_datum(column, cell) for column, cell in zip(table.columns, row.cells, strict=True)))
        for member, row in zip(benchmark.members, found, strict=True)
    ]
    return Grid(tuple(map(_head, table.columns)), tuple(lines), (*table.notes, *_about(found)))


def half(cell: Cell) -> float | None:
    """Half the 95 % interval of a cell's mean."""
    return interval([value for value in cell.values if value is not None])


def shown(cell: Cell, share: bool) -> tuple[str, str]:
    """A mean and half its interval: of a share in percent with one place, of any other number with four digits."""
    assert cell.mean is not None
    factor = 100 if share else 1
    magnitude = math.floor(math.log10(abs(cell.mean))) if cell.mean else 0
    places = 1 if share else min(6, max(0, 3 - magnitude))
    width = half(cell)
    text = f"{round(factor * cell.mean, places) + 0.0:.{places}f}"  # + 0.0: no minus before a zero
    return text, "" if width is None else f"{factor * width:.{places}f}"


def percent(share: float) -> str:
    """A share of 1 as it is shown."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


def _datum(column: Column, cell: Cell) -> Datum:
    """A cell with its interval: percent, time in words, or a number of its own unit."""
    if cell.mean is None:
        return Datum("–")
    if column.kind == "time":
        return Datum(humanise(cell.mean), cell.mean)
    text, spread = shown(cell, column.kind == "share")
    return Datum(text, cell.mean, spread, cell.best, cell.close)


def _p(row: Row, cell: Cell) -> Datum:
    if not row.ranked:
        return Datum("")
    if cell.p is None:
        return Datum("best" if cell.best else "–", 2.0 if cell.best else None)
    return Datum("< 0.001" if cell.p < 0.001 else f"{cell.p:.3f}", cell.p)


def _head(column: Column) -> Head:
    return Head(column.heading, about={"higher": "higher is better", "lower": "lower is better"}.get(column.better, ""))


def _about(found: Sequence[Row]) -> list[str]:
    """What the marks of a table mean, as far as it has them."""
    cells = [cell for row in found for cell in row.cells]
    notes = ["mean ± half of the 95 % interval (Student's t over seeds)"] if any(map(half, cells)) else []
    if any(cell.best for cell in cells):
        notes.append("best in bold")
    if any(cell.close for cell in cells):
        notes.append("≈ cannot be told from the best: p ≥ 0.05, not corrected for the number of rows")
    return notes


def _key(row: Row) -> tuple[object, ...]:
    return row.strategy, row.backbone, row.note, row.progress, row.seeds
