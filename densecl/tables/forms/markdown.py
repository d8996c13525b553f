"""Tables as Markdown that a README can take: pipes escaped, columns in line, footnotes below."""

import re
from collections.abc import Sequence

from densecl.tables.forms.cells import cell_text, footnotes, headings, label, remarks, seeds_text
from densecl.tables.table import Table

NAMES = 2  # left-aligned columns: strategy and backbone


def markdown(tables: Sequence[Table], spread: str = "std") -> str:
    """All tables, each below a heading with the benchmark's name."""
    return "\n".join(_section(table, spread) for table in tables)


def _section(table: Table, spread: str) -> str:
    numbers = footnotes(table)
    lines = [[escape(heading) for heading in headings(table)]]
    for row in table.rows:
        name, number = label(row, numbers)
        cells = [escape(name) + ("" if number is None else _reference(number)), escape(row.backbone), seeds_text(row)]
        for column, cell in zip(table.columns, row.cells, strict=True):
            text = cell_text(column, cell, spread)
            cells.append(f"**{text}**" if cell.best else text)
        lines.append(cells)
    below = ["; ".join(escape(remark) for remark in remarks(table, "best in bold", spread))]
    below += [f"{_reference(number)} {escape(note)}" for note, number in numbers.items()]
    return "\n".join([f"### {escape(table.benchmark)}", "", *_aligned(lines), "", "<br>\n".join(below), ""])


def _reference(number: int) -> str:
    return f"<sup>{number}</sup>"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a pipe table, all cells of a column equally wide."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i < NAMES else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    padded = [
        [
            cell.ljust(width) if i < NAMES else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return [f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]]]


def escape(text: str) -> str:
    """`text` as Markdown shows it literally."""
    return re.sub(r"([\\`*_<>|\[\]~])", r"\\\1", text)
