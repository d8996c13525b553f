"""Tables as HTML for notebooks and pages: one `<table>` a benchmark, without a style of its own."""

from collections.abc import Sequence
from html import escape

from densecl.tables.forms.cells import footnotes, lines, remarks
from densecl.tables.table import Table

WORDS = 2  # columns of words: strategy and backbone


def write(tables: Sequence[Table], spread: str = "std") -> str:
    """All tables, each with the benchmark's name as its caption."""
    return "\n".join(_section(table, spread) for table in tables) + "\n"


def _section(table: Table, spread: str) -> str:
    numbers = footnotes(table)
    headings, *body = lines(
        table, numbers, spread, backbones=True, escape=escape, reference=_reference, best="<b>{}</b>".format
    )
    below = ["; ".join(escape(remark) for remark in remarks(table, "best in bold", spread))]
    below += [f"{_reference(number)} {escape(note)}" for note, number in numbers.items()]
    rows = "\n".join(_row(line, "td") for line in body)
    head = f"<caption>{escape(table.benchmark)}</caption>\n<thead>\n{_row(headings, 'th')}\n</thead>"
    return f"<table>\n{head}\n<tbody>\n{rows}\n</tbody>\n</table>\n<p><small>{'<br>'.join(below)}</small></p>"


def _row(cells: Sequence[str], tag: str) -> str:
    sides = ["left"] * WORDS + ["right"] * (len(cells) - WORDS)
    shown = (f'<{tag} style="text-align: {side}">{cell}</{tag}>' for side, cell in zip(sides, cells, strict=True))
    return f"<tr>{''.join(shown)}</tr>"


def _reference(number: int) -> str:
    return f"<sup>{number}</sup>"
