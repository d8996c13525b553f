"""Listings in all forms of a table: text for the terminal, Markdown, LaTeX, CSV."""

import csv
import io
from collections.abc import Sequence

from rich.table import Table as RichTable
from rich.text import Text

from densecl.errors import SettingError
from densecl.tables.forms import latex, markdown
from densecl.tables.forms.csv import inert
from densecl.tables.forms.text import FORMATS
from densecl.tables.listing import Listing
from densecl.terminal import text_console

WIDE = 120  # characters in a line where there is no terminal
NARROW = 30  # characters of a column of text that is broken


def render(listings: Sequence[Listing], format: str = "terminal", *, width: int | None = None) -> str:
    """Listings as text that ends in a newline; `format` is terminal, markdown, csv (all in one) or latex."""
    if format not in FORMATS:
        raise SettingError(f"unknown format '{format}'", f"choose one of {', '.join(FORMATS)}")
    if format == "csv":
        return _csv(listings)
    if format == "latex":
        return "\n".join(["% \\usepackage{booktabs,graphicx}", *map(_latex, listings)])
    one = _markdown if format == "markdown" else lambda listing: _terminal(listing, width or WIDE)
    return "\n".join(map(one, listings))


def _terminal(listing: Listing, width: int) -> str:
    console = text_console(width, False)
    grid = RichTable(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    shown = _fitting(listing, width)
    for index, heading in enumerate(listing.headings[:shown]):
        left = index < listing.words
        grid.add_column(heading, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for line in listing.lines:
        grid.add_row(*map(Text, line.cells[:shown]))
    with console.capture() as capture:
        console.print(Text(listing.title, style="bold"))
        console.print(grid)
        for index, heading in enumerate(listing.below):
            for names, text in _shared(listing, index):
                console.print(Text(f"{heading}, {names}: {text}"))
        left_out = listing.headings[shown:]
        for remark in (*listing.remarks, *([f"a wider screen shows {', '.join(left_out)}"] if left_out else [])):
            console.print(Text(remark, style="dim"))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


def _fitting(listing: Listing, width: int) -> int:
    """How many columns have room, of which those of text may be as narrow as `NARROW`."""
    columns = list(zip(listing.headings, *(line.cells for line in listing.lines), strict=True))
    room = [max(map(len, column)) + 2 for column in columns]
    room = [min(own, NARROW) if index < listing.words else own for index, own in enumerate(room)]
    ends = [end for end in range(len(room) + 1) if sum(room[:end]) - 2 <= width]
    return max(*ends, listing.words + 1)


def _shared(listing: Listing, index: int) -> list[tuple[str, str]]:
    """The texts below the table under a heading, each once with the names of its rows."""
    names: dict[str, list[str]] = {}
    for line in listing.lines:
        names.setdefault(line.below[index], []).append(line.cells[0])
    whole = len(listing.lines)
    return [
        (f"all {whole} rows" if len(own) == whole > 1 else "; ".join(dict.fromkeys(own)), t)
        for t, own in names.items()
        if t
    ]


def _markdown(listing: Listing) -> str:
    cells = [[markdown.escape(text) for text in line] for line in _lines(listing)]
    notes = "; ".join(map(markdown.escape, listing.remarks))
    words = {*range(listing.words), *range(len(listing.headings), len(cells[0]))}
    return "\n".join([f"### {markdown.escape(listing.title)}", "", *markdown.aligned(cells, words), "", notes, ""])


def _latex(listing: Listing) -> str:
    headings, *body = [[latex.escape(text) for text in line] for line in _lines(listing)]
    form = "l" * listing.words + "r" * (len(listing.headings) - listing.words)
    form += "p{0.2\\linewidth}" * len(listing.below)
    lines = [f"    {{}}{' & '.join(line)} \\\\" for line in body]
    text = [
        "\\begin{table*}",
        "  \\centering",
        "  \\footnotesize",
        "  \\setlength{\\tabcolsep}{3pt}",
        f"  \\caption{{{latex.escape(listing.title)}}}",
        *latex.fitted(form, [f"    {' & '.join(headings)} \\\\", "    \\midrule", *lines]),
        *(f"  \\par {latex.escape(remark)}." for remark in listing.remarks),
        "\\end{table*}",
        "",
    ]
    return "\n".join(text)


def _csv(listings: Sequence[Listing]) -> str:
    headings = list(dict.fromkeys(heading for listing in listings for heading in _lines(listing)[0]))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["table", *headings])
    for listing in listings:
        own, *body = _lines(listing)
        numbers = listing.headings[listing.words :]
        for line in body:
            cells = dict(zip(own, line, strict=True))
            cells = {key: text.removeprefix("+") if key in numbers else inert(text) for key, text in cells.items()}
            shown = ("" if (text := cells.get(heading, "")) == "-" else text for heading in headings)
            writer.writerow([inert(listing.title), *shown])
    return stream.getvalue()


def _lines(listing: Listing) -> list[tuple[str, ...]]:
    """All rows, headings first, with what stands below them in last columns."""
    return [(*listing.headings, *listing.below), *((*line.cells, *line.below) for line in listing.lines)]
