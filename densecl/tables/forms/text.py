"""Tables as text for the terminal, and the way to all forms: `render`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import product

from rich.table import Table as RichTable
from rich.text import Text

from densecl.errors import SettingError
from densecl.tables.forms.cells import SPREADS, footnotes, lines, remarks, shared_backbone, words
from densecl.tables.table import Table
from densecl.terminal import text_console

FORMATS = ("terminal", "markdown", "csv", "latex")  # all but the first are files of this folder
UNLIMITED = 10_000  # columns
BEST, SECOND = "*", "_"
STYLES = {BEST: "bold", SECOND: "underline"}


def render(
    tables: Sequence[Table],
    format: str = "terminal",
    *,
    width: int | None = None,
    colour: bool = False,
    spread: str = "std",
    cite: bool = False,
) -> str:
    r"""`tables` as text that ends in a newline.

    `format` is terminal, markdown, csv (all tables in one; fractions of 1 and seconds, unrounded) or latex. `width`
    limits the lines of a terminal; without `colour` the best value has a star instead of bold type. `spread` is the
    number after ±: std, the standard deviation (n - 1), or interval, half the mean's 95 % interval. `cite`
    puts \cite behind names in LaTeX, where benchmarks stand side by side.
    """
    for kind, name, known in (("format", format, FORMATS), ("spread", spread, SPREADS)):
        if name not in known:
            raise SettingError(f"unknown {kind} '{name}'", f"choose one of {', '.join(known)}")
    if format == "latex":
        return import_module("densecl.tables.forms.latex").write(tables, spread, cite)
    if format != "terminal":
        return import_module(f"densecl.tables.forms.{format}").write(tables, spread)
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

    def fits(part: Table) -> bool:
        return console.measure(_grid(part, colour, gap, shown, numbers), options=wide).maximum <= width

    grids = [_grid(part, colour, gap, shown, numbers) for part in _parts(table, fits)]
    with console.capture() as capture:
        backbone = shared_backbone(table)
        console.print(Text(f"{table.benchmark} · {backbone}" if backbone else table.benchmark, style="bold"))
        for grid in grids:
            console.print(grid)
        for note, number in numbers.items():
            console.print(Text(f"[{number}] {note}", style="dim"))
        marks = ("best in bold", "second underlined") if colour else ("* is the best", "_ the second")
        for remark in remarks(table, marks[0], shown, marks[1]):
            console.print(Text(remark, style="dim"))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


def _parts(table: Table, fits: Callable[[Table], bool]) -> list[Table]:
    """A table by class in parts of few enough rows, which are its columns; any other table as it is."""
    parts, left = [], table.rows
    while table.by_class and len(left) > 1 and not fits(replace(table, rows=left)):
        counts = range(len(left) - 1, 1, -1)
        count = next((n for n in counts if fits(replace(table, rows=left[:n]))), 1)
        parts.append(replace(table, rows=left[:count]))
        left = left[count:]
    return [*parts, replace(table, rows=left)]


def _grid(table: Table, colour: bool, gap: int, spread: str | None, numbers: Mapping[str, int]) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, header_style="", padding=(0, gap, 0, 0))
    backbones = shared_backbone(table) is None
    headings, *body = lines(
        table,
        numbers,
        spread,
        backbones=backbones,
        escape=str,
        reference=" [{}]".format,
        best=(BEST + "{}").format,
        second=(SECOND + "{}").format,
    )
    first = 1 if table.by_class else 3 if backbones else 2  # column of numbers
    for index, heading in enumerate(headings):
        left = index < words(table, backbones)
        grid.add_column(heading, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for line in body:
        styles = [STYLES.get(text[:1], "") if colour else "" for text in line[first:]]
        numbers_of_row = [
            Text(text[1:] if style else text, style) for text, style in zip(line[first:], styles, strict=True)
        ]
        grid.add_row(*map(Text, line[:first]), *numbers_of_row)
    return grid
