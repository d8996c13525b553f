"""Tables as Markdown that a README can take: pipes escaped, columns in line, footnotes below."""

import re
from collections.abc import Container, Sequence

from densecl.tables.forms.cells import footnotes, lines, remarks, words
from densecl.tables.table import Table

NAMES = (0, 1)  # left-aligned columns: strategy and backbone


def write(tables: Sequence[Table], spread: str = "std") -> str:
    """All tables, each below a heading with the benchmark's name."""
    return "\n".join(_section(table, spread) for table in tables)


def _section(table: Table, spread: str) -> str:
    numbers = footnotes(table)
    cells = lines(
        table,
        numbers,
        spread,
        backbones=True,
        escape=escape,
        reference=_reference,
        best="**{}**".format,
        second="<u>{}</u>".format,
    )
    below = ["; ".join(escape(remark) for remark in remarks(table, "best in bold", spread))]
    below += [f"{_reference(number)} {escape(note)}" for note, number in numbers.items()]
    body = aligned(cells, range(words(table, backbones=True)))
    return "\n".join([f"### {escape(table.benchmark)}", "", *body, "", "<br>\n".join(below), ""])


def _reference(number: int) -> str:
    return f"<sup>{number}</sup>"


def aligned(cells: Sequence[Sequence[str]], names: Container[int] = NAMES) -> list[str]:
    """The lines of a pipe table, all cells of a column equally wide; those with words are left-aligned."""
    columns = []
    for index, column in enumerate(zip(*cells, strict=True)):
        width = max(3, *map(len, column))
        left = index in names
        heading, *values = (text.ljust(width) if left else text.rjust(width) for text in column)
        columns.append([heading, "-" * width if left else "-" * (width - 1) + ":", *values])
    return [f"| {' | '.join(line)} |" for line in zip(*columns, strict=True)]


def escape(text: str) -> str:
    """`text` as Markdown shows it literally."""
    return re.sub(r"([\\`*_<>|\[\]~])", r"\\\1", text)
