"""Tables as text: for the terminal, as Markdown, CSV or LaTeX (booktabs)."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal, get_args

from rich.table import Table as RichTable
from rich.text import Text

from densecl.errors import SettingError
from densecl.tables.columns import Cell
from densecl.tables.forms.cells import (
    SPREADS,
    cell_text,
    footnotes,
    humanise,
    label,
    remarks,
    seeds_text,
    shared_backbone,
    spread_of,
)
from densecl.tables.forms.latex import latex
from densecl.tables.forms.markdown import markdown
from densecl.tables.table import Table
from densecl.terminal import text_console

__all__ = ["Format", "humanise", "render"]

Format = Literal["terminal", "markdown", "csv", "latex"]
UNLIMITED = 10_000  # columns


def render(
    tables: Sequence[Table],
    format: str = "terminal",
    *,
    width: int | None = None,
    colour: bool = False,
    spread: str = "std",
) -> str:
    """`tables` as text that ends in a newline.

    Args:
        tables: of `densecl.tables.table.rows`.
        format: terminal, markdown, csv (all tables in one; fractions of 1 and seconds, unrounded) or latex.
        width: columns of the terminal; None does not limit lines.
        colour: whether the terminal understands escape codes; without, the best value has a star instead of bold type.
        spread: what stands after ±: std, the standard deviation (n - 1), or interval, half the mean's 95 % interval.

    Raises:
        SettingError: an unknown format or spread.
    """
    if format not in get_args(Format):
        raise SettingError(f"unknown format '{format}'", f"choose one of {', '.join(get_args(Format))}")
    if spread not in SPREADS:
        raise SettingError(f"unknown spread '{spread}'", f"choose one of {', '.join(SPREADS)}")
    if format == "csv":
        return _csv(tables)
    if format == "markdown":
        return markdown(tables, spread)
    if format == "latex":
        return latex(tables, spread)
    return "\n".join(_terminal(table, width or UNLIMITED, colour, spread) for table in tables)


def _terminal(table: Table, width: int, colour: bool, spread: str) -> str:
    console = text_console(width, colour)
    wide = console.options.update(width=UNLIMITED)
    # what a narrow screen costs, in order: the second blank, the notes beside names, ±; at last names are folded
    choices = product((spread, None), (footnotes(table), footnotes(table, 0)), (2, 1))
    for shown, numbers, gap in choices:
        grid = _grid(table, colour, gap, shown, numbers)
        if console.measure(grid, options=wide).maximum <= width:
            break
    with console.capture() as capture:
        console.print(Text(_title(table), style="bold"))
        console.print(grid)
        for note, number in numbers.items():
            console.print(Text(f"[{number}] {note}", style="dim"))
        for remark in remarks(table, "best in bold" if colour else "* is the best", shown):
            console.print(Text(remark, style="dim"))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


def _title(table: Table) -> str:
    shared = shared_backbone(table)
    return f"{table.benchmark} · {shared}" if shared else table.benchmark


def _grid(table: Table, colour: bool, gap: int, spread: str | None, numbers: Mapping[str, int]) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, header_style="", padding=(0, gap, 0, 0))
    grid.add_column("strategy", overflow="fold")
    own_backbone = shared_backbone(table) is None
    if own_backbone:
        grid.add_column("backbone", overflow="fold")
    grid.add_column("seeds", justify="right", no_wrap=True)
    for column in table.columns:
        grid.add_column(column.heading, justify="right", no_wrap=True)
    for row in table.rows:
        name, number = label(row, numbers)
        cells = [Text(name if number is None else f"{name} [{number}]")]
        cells += [Text(row.backbone)] if own_backbone else []
        cells.append(Text(seeds_text(row)))
        for column, cell in zip(table.columns, row.cells, strict=True):
            star = "*" if cell.best and not colour else ""
            cells.append(Text(star + cell_text(column, cell, spread), style="bold" if cell.best else ""))
        grid.add_row(*cells)
    return grid


def _csv(tables: Sequence[Table]) -> str:
    """Full precision: a mean, both spreads and p of the test against the best, where it was made."""
    headings = list(dict.fromkeys(column.heading for table in tables for column in table.columns))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    compared = any(row.source for table in tables for row in table.rows)
    endings = ("", " std", " interval", " p", *([" difference"] if compared else []))
    measured = [f"{heading}{ending}" for heading in headings for ending in endings]
    own = ["source"] if compared else []
    writer.writerow(["benchmark", "strategy", "settings", "backbone", "seeds", "progress", "oracle", *own, *measured])
    for table in tables:
        for row in table.rows:
            seeds = " ".join(map(str, row.seeds))
            line = [table.benchmark, row.strategy, row.note, row.backbone, seeds, row.progress, row.oracle or ""]
            line += [row.source] if compared else []
            cells = {column.heading: cell for column, cell in zip(table.columns, row.cells, strict=True)}
            for heading in headings:
                cell = cells.get(heading, Cell(None))
                values = (cell.mean, cell.std, spread_of(cell, "interval"), cell.p, cell.difference)[: len(endings)]
                line += ["" if value is None else repr(value) for value in values]
            writer.writerow(line)
    return stream.getvalue()
