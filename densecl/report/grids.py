"""Tables of the page: means with 95 % intervals over seeds, ranked, and tested against the best row."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from densecl.records.layout import ranges
from densecl.report.gather import Benchmark, Member, rank_order
from densecl.tables.columns import Cell, Column
from densecl.tables.forms.cells import FEWER, FEWER_SEEDS
from densecl.tables.groupings import grouping
from densecl.tables.measure import BothMeans, View
from densecl.tables.table import Row, Table, table_of
from densecl.terminal import humanise

MARKS = {
    "interval": "mean ± half of the 95 % interval (Student's t over seeds)",
    "best": "best in bold",
    "close": "≈ cannot be told from the best: p ≥ 0.05, not corrected for the number of rows",
}


class Head(NamedTuple):
    """A column's heading; `number` decides how it is sorted and aligned."""

    text: str
    number: bool = True
    about: str = ""


class Datum(NamedTuple):
    """A cell: its text, and the value it is sorted by."""

    text: str
    value: float | None = None
    spread: str = ""  # half the interval
    best: bool = False
    close: bool = False  # cannot be told from the best


class Line(NamedTuple):
    """A row of a grid; `rank` is empty for rows that are not ranked."""

    member: Member
    cells: tuple[Datum, ...]
    rank: str = ""


class Grid(NamedTuple):
    """A table of the page."""

    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


def in_view(benchmark: Benchmark, group: str | None = None, per_step: bool = False) -> tuple[Table, list[Row]]:
    """The benchmark's table in another view, and its rows in the order of the members."""
    if group is None and not per_step:
        return benchmark.table, [member.row for member in benchmark.members]
    view = View(BothMeans() if group is None else grouping(group), per_step=per_step)
    table = table_of(benchmark.scored, benchmark.records, view)
    of_run = {id(row.runs[0]): row for row in table.rows}
    return table, [of_run[id(member.row.runs[0])] for member in benchmark.members]


def ranking(benchmark: Benchmark, group: str | None = None) -> Grid:
    """The rows by their mean in one column, highest first; then, without a rank, those that are not compared.

    The column is the one that the grouping `group` adds, else the mean of all classes.
    """
    table, shown = in_view(benchmark, group)
    by = (grouping(group).extra if group else "") or "all"
    ranks = benchmark.is_ranked and by in (column.heading for column in table.columns)
    pairs = sorted(zip(benchmark.members, shown, strict=True), key=lambda pair: rank_order(pair[1], table, by))
    several = len({row.backbone for row in shown}) > 1
    test = f"two-sided p of the paired t-test over common seeds against the best in {by}"
    heads = [*([Head("backbone", False)] if several else []), Head("seeds"), *map(_head, table.columns)]
    heads += [Head(f"p, {by}", about=test)] if ranks else []
    lines, rank = [], 0
    for member, row in pairs:
        compared = table.cell(row, by)
        cells = [Datum(row.backbone)] if several else []
        seeds = f"{ranges(row.seeds)}{FEWER if row.has_fewer_seeds else ''}"
        cells += [Datum(seeds, float(len(row.seeds))), *_cells(table, row)]
        cells += [_p(row, compared)] if ranks else []
        ranked = ranks and row.ranked and compared.mean is not None
        rank += ranked
        lines.append(Line(member, tuple(cells), str(rank) if ranked else ""))
    fewer = [f"{FEWER} {FEWER_SEEDS}"] if any(row.has_fewer_seeds for row in shown) else []
    return Grid(tuple(heads), tuple(lines), (*table.notes, *fewer, *_marks(shown)))


def after_steps(benchmark: Benchmark) -> Grid:
    """The mean of all classes seen so far, after each step."""
    table, shown = in_view(benchmark, per_step=True)
    lines = [Line(m, tuple(_cells(table, row))) for m, row in zip(benchmark.members, shown, strict=True)]
    return Grid(tuple(map(_head, table.columns)), tuple(lines), (*table.notes, *_marks(shown)))


def number(cell: Cell, share: bool) -> Datum:
    """A mean and half its interval: a share in percent with one place, any other number with four digits."""
    if cell.mean is None:
        return Datum("–")
    factor = 100 if share else 1
    magnitude = math.floor(math.log10(abs(cell.mean))) if cell.mean else 0
    places = 1 if share else min(6, max(0, 3 - magnitude))
    width = cell.half
    text = f"{round(factor * cell.mean, places) + 0.0:.{places}f}"  # + 0.0: no minus before a zero
    return Datum(text, cell.mean, "" if width is None else f"{factor * width:.{places}f}", cell.best, cell.close)


def over_seeds(shares: Sequence[float]) -> Datum:
    """Mean and half the interval of shares in percent."""
    return number(Cell(statistics.fmean(shares), values=tuple(shares)), True)


def percent(share: float) -> str:
    """A share of 1 in percent, with one place."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


def _cells(table: Table, row: Row) -> list[Datum]:
    """Cells with their intervals: percent, time in words, or a number in its own unit."""
    return [
        Datum(humanise(cell.mean), cell.mean)
        if column.kind == "time" and cell.mean is not None
        else number(cell, column.kind == "share")
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]


def _p(row: Row, cell: Cell) -> Datum:
    if not row.ranked:
        return Datum("")
    if cell.p is None:
        return Datum("best" if cell.best else "–", 2.0 if cell.best else None)
    return Datum("< 0.001" if cell.p < 0.001 else f"{cell.p:.3f}", cell.p)


def _head(column: Column) -> Head:
    return Head(column.heading, about=f"{column.better} is better" if column.better in ("higher", "lower") else "")


def _marks(shown: Sequence[Row]) -> list[str]:
    """The marks that a table has, explained."""
    cells = [cell for row in shown for cell in row.cells]
    used = {"interval": (c.half for c in cells), "best": (c.best for c in cells), "close": (c.close for c in cells)}
    return [MARKS[name] for name, marked in used.items() if any(marked)]
