"""`--filter`, `--sort` and `--columns`: which runs a table shows, in what order, by which columns."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeGuard

from densecl.errors import RecordError, SettingError, UnknownNameError
from densecl.records.layout import clean, method_name
from densecl.records.record import Record, facts, plain, resolve
from densecl.settings.grammar import format_value, parse_value
from densecl.tables.table import Row, Table

FORM = re.compile(r"\s*([\w.]+)\s*(!=|<=|>=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
ORDERED: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
MOST = 10  # values that a message lists
DIRECTIONS = ("asc", "desc")
NAMES = ("strategy", "backbone", "seeds")  # what rows are called by: can be sorted by, and always stands in a table
PARTS = ("base", "added")  # other names of the columns of class ranges, whatever the benchmark


class Choice(NamedTuple):
    """Choice of runs and of their look: what `densecl table` and `densecl report` take alike."""

    filter: Sequence[str] = ()  # conditions that runs must meet
    group: str | None = None  # how classes are averaged
    sort: str | None = None  # `COLUMN`, `COLUMN:asc` or `COLUMN:desc`
    columns: Sequence[str] = ()  # headings, several with commas between


def chosen(records: Sequence[Record], conditions: Sequence[str]) -> list[Record]:
    """The records that meet all conditions, such as `setting=disjoint`. One without the key meets `!=` alone.

    `strategy` is met with or without arguments. Keys are those of `densecl.records.record.facts`.
    """
    left = [(record, facts(record)) for record in records]
    known = {key for _, values in left for key in values}
    for text in conditions:
        key, is_met = _condition(text, known)
        before, left = left, [(record, values) for record, values in left if is_met(values)]
        if not left:
            texts = sorted({clean(format_value(values[key])) for _, values in before if key in values})
            more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
            there = f"{key} is {', '.join(texts[:MOST])}{more}" if texts else f"none of those that are left has {key}"
            raise RecordError(f"no run meets --filter '{clean(text)}'", there)
    return [record for record, _ in left]


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


def heading_of(tables: Sequence[Table], text: str) -> str:
    """The heading that `--sort` names in the first table that has it; empty for what rows are called by."""
    name, _ = _heading_and_direction(tables, text)
    places = ((table, index) for table in tables if (index := _find(table, name)) is not None)
    return next((table.columns[index].heading for table, index in places), "")


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
    return [_with_columns(table, names) for table in tables]


def _condition(text: str, known: set[str]) -> tuple[str, Callable[[Mapping[str, Any]], bool]]:
    """The key of a condition, and the function that tries it on the facts of a record."""
    match = FORM.fullmatch(text)
    if match is None:
        raise SettingError(f"--filter '{clean(text)}' is no condition", "the form is key=value, with = != < > <= or >=")
    name, sign, literal = match.groups()
    key, wanted = resolve(name, known, "--filter"), parse_value(literal)
    if sign in ORDERED:
        if not _is_number(wanted):
            raise SettingError(f"--filter '{clean(text)}': {sign} compares numbers", f"write {name}=... or {name}!=...")
        return key, lambda values: _is_number(values.get(key)) and ORDERED[sign](values[key], wanted)

    def is_equal(values: Mapping[str, Any]) -> bool:
        value = values.get(key)
        if isinstance(value, str):  # `densecl=0.1` asks for text that looks like a number
            return value in (wanted, literal) or (key == "strategy" and method_name(value) == literal)
        if isinstance(value, bool) or isinstance(wanted, bool):  # True is not 1 here
            return value is wanted
        return key in values and value == plain(wanted)  # lists, as records have them

    return key, is_equal if sign in ("=", "==") else lambda values: not is_equal(values)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _find(table: Table, name: str) -> int | None:
    """The place of a column, by its heading or by `base` or `added`."""
    headings = [column.heading for column in table.columns]
    if name in headings:
        return headings.index(name)
    return next((i for i, column in enumerate(table.columns) if column.part == name and name in PARTS), None)


def _is_known(tables: Sequence[Table], name: str) -> bool:
    return any(_find(table, name) is not None for table in tables)


def _check(tables: Sequence[Table], name: str, option: str, further: Sequence[str] = ()) -> None:
    if not _is_known(tables, name):
        headings = [column.heading for table in tables for column in table.columns]
        parts = [part for part in PARTS if _is_known(tables, part)]
        raise UnknownNameError("column", name, {*headings, *parts, *further}, f"{option} takes headings of the table")


def _heading_and_direction(tables: Sequence[Table], text: str) -> tuple[str, str]:
    name, colon, direction = (part.strip() for part in text.rpartition(":"))
    if not colon or (direction not in DIRECTIONS and _is_known(tables, text.strip())):
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


def _sorted(table: Table, heading: str, direction: str) -> Table:
    index = _find(table, heading)
    if index is None and heading not in NAMES:
        return table
    better = None if index is None else table.columns[index].better

    def value(row: Row) -> Any:
        if index is not None:
            return row.cells[index].mean
        return len(row.seeds) if heading == "seeds" else getattr(row, heading)

    known = [row for row in table.rows if value(row) is not None]
    unknown = [row for row in table.rows if value(row) is None]
    descending = direction == "desc" or (not direction and better == "higher")
    return replace(table, rows=(*sorted(known, key=value, reverse=descending), *unknown))


def _with_columns(table: Table, names: Sequence[str]) -> Table:
    indices = list(dict.fromkeys(index for name in names if (index := _find(table, name)) is not None))
    return replace(
        table,
        columns=tuple(table.columns[index] for index in indices),
        rows=tuple(replace(row, cells=tuple(row.cells[index] for index in indices)) for row in table.rows),
        notes=table.notes if indices else (*table.notes, f"has none of the columns {', '.join(names)}"),
    )
