"""Tables as text for the terminal, and the way to all forms: `render`."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import product

from rich.table import Table as RichTable
from rich.text import Text

from densecl.errors import SettingError
from densecl.tables.forms.cells import SPREADS, footnotes, lines, remarks, shared_backbone
from densecl.tables.table import Table
from densecl.terminal import text_console

FORMATS = ("terminal", "markdown", "csv", "latex")  # all but the first are files of this folder
UNLIMITED = 10_000  # columns
BEST = "*"


def render(
    tables: Sequence[Table],
    format: str = "terminal",
    *,
    width: int | None = None,
    colour: bool = False,
    spread: str = "std",
) -> str:
    """`tables` as text that ends in a newline.

    `format` is terminal, markdown, csv (all tables in one; fractions of 1 and seconds, unrounded) or latex. `width`
    limits the lines of a terminal; without `colour` the best value has a star instead of bold type. `spread` is the
    number after ±: std, the standard deviation (n - 1), or interval, half the mean's 95 % interval.
    """
    for kind, name, known in (("format", format, FORMATS), ("spread", spread, SPREADS)):
        if name not in known:
            raise SettingError(f"unknown {kind} '{name}'", f"choose one of {', '.join(known)}")
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
    with console.capture() as capture:
        backbone = shared_backbone(table)
        console.print(Text(f"{table.benchmark} · {backbone}" if backbone else table.benchmark, style="bold"))
        console.print(grid)
        for note, number in numbers.items():
            console.print(Text(f"[{number}] {note}", style="dim"))
        for remark in remarks(table, "best in bold" if colour else "* is the best", shown):
            console.print(Text(remark, style="dim"))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


def _grid(table: Table, colour: bool, gap: int, spread: str | None, numbers: Mapping[str, int]) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, header_style="", padding=(0, gap, 0, 0))
    backbones = shared_backbone(table) is None
    headings, *body = lines(
        table, numbers, spread, backbones=backbones, escape=str, reference=" [{}]".format, best=(BEST + "{}").format
    )
    first = 3 if backbones else 2  # column of numbers
    for index, heading in enumerate(headings):
        words = index < first - 1
        grid.add_column(heading, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for line in body:
        numbers_of_row = [
            Text(text.removeprefix(BEST), "bold") if colour and text.startswith(BEST) else Text(text, "")
            for text in line[first:]
        ]
        grid.add_row(*map(Text, line[:first]), *numbers_of_row)
    return grid
