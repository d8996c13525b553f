"""Tables as CSV, with full precision."""

import csv
import io
from collections.abc import Sequence

from densecl.tables.columns import Cell
from densecl.tables.table import Table


def write(tables: Sequence[Table], spread: str = "std") -> str:  # always with both spreads
    """All tables in one: each mean, both spreads, p of the test against the best, difference to published numbers."""
    headings = list(dict.fromkeys(column.heading for table in tables for column in table.columns))
    compared = any(row.source for table in tables for row in table.rows)
    endings = ("", " std", " interval", " p", *([" difference"] if compared else []))
    foreign = any(row.foreign for table in tables for row in table.rows)
    own = [*(["source"] if compared else []), *(["foreign"] if foreign else [])]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ["benchmark", "strategy", "settings", "backbone", "seeds", "progress", "oracle", *own]
    writer.writerow(names + [inert(f"{heading}{ending}") for heading in headings for ending in endings])
    for table in tables:
        for row in table.rows:
            seeds = " ".join(map(str, row.seeds))
            line = [table.benchmark, row.strategy, row.note, row.backbone, seeds, row.progress, row.oracle or ""]
            line += [*([row.source] if compared else []), *(["self-declared" * row.foreign] if foreign else [])]
            line = [inert(text) for text in line]
            cells = {column.heading: cell for column, cell in zip(table.columns, row.cells, strict=True)}
            for heading in headings:
                cell = cells.get(heading, Cell(None))
                values = (cell.mean, cell.std, cell.half, cell.p, cell.difference)[: len(endings)]
                line += ["" if value is None else repr(value) for value in values]
            writer.writerow(line)
    return stream.getvalue()


def inert(text: str) -> str:
    """`text` as spreadsheets do not run it: they take a cell that begins with one of these signs for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
