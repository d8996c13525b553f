"""Tables of the page: means with 95 % intervals over seeds, ranked, and tested against the best row."""

import math
import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from densecl.records.layout import ranges
from densecl.report.gather import Benchmark, Member, rank_order
from densecl.tables.columns import Cell, Column
from densecl.tables.forms.cells import FEWER, FEWER_SEEDS
from densecl.tables.groupings import grouping
from densecl.tables.measure import View
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
    note: str = ""  # small, behind the text


class Line(NamedTuple):
    """A row of a grid; `rank` is empty for rows that are not ranked."""

    member: Member
    cells: tuple[Datum, ...]
    rank: str = ""
    tags: Mapping[str, str] = MappingProxyType({})  # what lines are filtered by


class Grid(NamedTuple):
    """A table of the page."""

    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    heat: bool = False  # cells are shaded by their value


def in_view(benchmark: Benchmark, group: str | None = None, per_step: bool = False) -> tuple[Table, list[Row]]:
    """The benchmark's table in another view, and its rows in the order of the members."""
    if group is None and not per_step:
        return benchmark.table, [member.row for member in benchmark.members]
    view = View(benchmark.grouping if group is None else grouping(group), per_step=per_step)
    table = table_of(benchmark.scored, benchmark.records, view)
    of_run = {id(row.runs[0]): row for row in table.rows}
    return table, [of_run[id(member.row.runs[0])] for member in benchmark.members]


def ranking(benchmark: Benchmark, group: str | None = None) -> Grid:
    """The rows in their order, with their rank by one column; those that are not compared have none.

    The column is the one that the benchmark is ranked by; with `group`, the one that this grouping adds, else the mean
    of all classes, and the best row is the first.
    """
    table, shown = in_view(benchmark, group)
    by = benchmark.by if group is None else (grouping(group).extra or "all")
    pairs = list(zip(benchmark.members, shown, strict=True))
    ranks = benchmark.is_ranked and by in (column.heading for column in table.columns)
    best_first = sorted(pairs, key=lambda pair: rank_order(pair[1], table, by))
    ranked = [id(row) for _, row in best_first if row.ranked and table.cell(row, by).mean is not None] if ranks else []
    rank = {row: str(number) for number, row in enumerate(ranked, start=1)}
    several = len({row.backbone for row in shown}) > 1
    test = f"two-sided p of the paired t-test over common seeds against the best in {by}"
    headings = benchmark.shown if group is None else sorted((c.heading for c in table.columns), key=lambda h: h != by)
    own = {column.heading: column for column in table.columns}
    first, rest = headings[:1], headings[1:]
    heads = [*(_head(own[heading]) for heading in first), *([Head(f"p, {by}", about=test)] if ranks else [])]
    heads += [Head("seeds"), *([Head("backbone", False)] if several else []), *(_head(own[name]) for name in rest)]
    lines = []
    for member, row in pairs if group is None else best_first:
        cells = dict(zip(own, _cells(table, row), strict=True))
        seeds = f"{ranges(row.seeds)}{FEWER if row.has_fewer_seeds else ''}"
        shown_cells = [*(cells[heading] for heading in first), *([_p(row, table.cell(row, by))] if ranks else [])]
        shown_cells += [Datum(seeds, float(len(row.seeds))), *([Datum(row.backbone)] if several else [])]
        shown_cells += [cells[heading] for heading in rest]
        lines.append(Line(member, tuple(shown_cells), rank.get(id(row), "")))
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


def p_text(p: float) -> str:
    """The p of a test."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


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
    return Datum(p_text(cell.p), cell.p)


def _head(column: Column) -> Head:
    return Head(column.heading, about=f"{column.better} is better" if column.better in ("higher", "lower") else "")


def _marks(shown: Sequence[Row]) -> list[str]:
    """The marks that a table has, explained."""
    cells = [cell for row in shown for cell in row.cells]
    used = {"interval": (c.half for c in cells), "best": (c.best for c in cells), "close": (c.close for c in cells)}
    return [MARKS[name] for name, marked in used.items() if any(marked)]
