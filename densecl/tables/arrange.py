"""`--sort` and `--columns`: tables in another order, or with fewer columns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from densecl.errors import SettingError, UnknownNameError
from densecl.tables.table import Row, Table

DIRECTIONS = ("asc", "desc")
NAMES = ("strategy", "backbone", "seeds")  # what rows are called by: can be sorted by, and always stands in a table
PARTS = ("base", "added")  # other names of the columns of class ranges, whatever the benchmark


def sort_rows(tables: Sequence[Table], text: str) -> list[Table]:
    """The tables with rows in the order of `COLUMN`, `COLUMN:asc` or `COLUMN:desc`.

    Without a direction the best comes first, the smallest where no value is better. Rows without a value come last
    either way, equal rows stay as they are. A table without the column stays as it is. COLUMN is a heading, `base` or
    `added` (the first range of classes and the second), strategy, backbone or seeds.
    """
    heading, direction = _heading_and_direction(tables, text)
    if heading not in NAMES:
        _check(tables, heading, "--sort", NAMES)
    return [_sorted(table, heading, direction) for table in tables]


def choose_columns(tables: Sequence[Table], texts: Sequence[str]) -> list[Table]:
    """The tables with the columns that are named, in that order; strategy, backbone and seeds always stay.

    A text holds a heading, or several with commas between; `base` and `added` will do for ranges of classes.
    """
    headings = {column.heading for table in tables for column in table.columns}
    names: list[str] = []
    for text in texts:
        names += [text.strip()] if text.strip() in headings else _split(text, headings)
    if not names:
        raise SettingError("--columns names no column", f"known: {', '.join(sorted(headings))}")
    for name in names:
        _check(tables, name, "--columns")
    return [_chosen(table, names) for table in tables]


def find(table: Table, name: str) -> int | None:
    """The place of a column, by its heading or by `base` or `added`."""
    headings = [column.heading for column in table.columns]
    if name in headings:
        return headings.index(name)
    return next((i for i, column in enumerate(table.columns) if column.part == name and name in PARTS), None)


def _heading_and_direction(tables: Sequence[Table], text: str) -> tuple[str, str]:
    name, colon, direction = (part.strip() for part in text.rpartition(":"))
    if not colon or (direction not in DIRECTIONS and any(find(table, text.strip()) is not None for table in tables)):
        return text.strip(), ""
    if direction not in DIRECTIONS:
        raise SettingError(f"--sort {text}: unknown direction '{direction}'", "write COLUMN:asc or COLUMN:desc")
    return name, direction


def _split(text: str, headings: set[str]) -> list[str]:
    """The names in `text`; a heading may hold commas itself, as `1-3, 7` does."""
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    names: list[str] = []
    while pieces:
        length = next((n for n in range(len(pieces), 1, -1) if ", ".join(pieces[:n]) in headings), 1)
        names.append(", ".join(pieces[:length]))
        pieces = pieces[length:]
    return names


def _check(tables: Sequence[Table], name: str, option: str, further: Sequence[str] = ()) -> None:
    if all(find(table, name) is None for table in tables):
        headings = [column.heading for table in tables for column in table.columns]
        parts = [part for part in PARTS if any(find(table, part) is not None for table in tables)]
        raise UnknownNameError("column", name, {*headings, *parts, *further}, f"{option} takes headings of the table")


def _sorted(table: Table, heading: str, direction: str) -> Table:
    index = find(table, heading)
    if index is None and heading not in NAMES:
        return table
    descending = direction == "desc" or (
        not direction and index is not None and table.columns[index].better == "higher"
    )

    def value(row: Row) -> Any:
        if index is not None:
            return row.cells[index].mean
        return len(row.seeds) if heading == "seeds" else getattr(row, heading)

    known = [row for row in table.rows if value(row) is not None]
    unknown = [row for row in table.rows if value(row) is None]
    return replace(table, rows=(*sorted(known, key=value, reverse=descending), *unknown))


def _chosen(table: Table, names: Sequence[str]) -> Table:
    indices = list(dict.fromkeys(index for name in names if (index := find(table, name)) is not None))
    return replace(
        table,
        columns=tuple(table.columns[index] for index in indices),
        rows=tuple(replace(row, cells=tuple(row.cells[index] for index in indices)) for row in table.rows),
        notes=table.notes if indices else (*table.notes, f"has none of the columns {', '.join(names)}"),
    )
