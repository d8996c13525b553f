"""`--layout paper` of class-incremental streams: the benchmarks of a data set side by side, a line for each method."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from densecl.errors import SpecError
from densecl.records.layout import UPPER_BOUND, main_name
from densecl.records.published import PARTS
from densecl.settings.catalogue import strategy_recipes
from densecl.settings.grammar import parse
from densecl.tables.columns import Cell, Column, rounded
from densecl.tables.table import Row, Table

SPLIT = re.compile(r"(.*?)(\d+-\d+s?)( on held-out training images)?")
KEY = re.compile(r"@\w+\s*\{\s*([^,\s]+)\s*,")


class Part(NamedTuple):
    """A benchmark's share of a line: the row and its cells."""

    row: Row
    cells: tuple[Cell, ...]


@dataclass
class _Line:
    """A method, or the numbers that a paper reports of it, on every benchmark that it has."""

    parts: dict[int, Part]  # by the number of the benchmark


def side_by_side(tables: Sequence[Table], catalogue: Path | None = None) -> list[Table]:
    """One table for each data set: base, added and all of each benchmark, with display names of methods.

    Best and second are those of each benchmark. Unfinished runs are left out; a footnote counts them.
    """
    families: dict[tuple[str, str], list[Table]] = {}
    for table in tables:
        family, _, held_out = _split(table)
        families.setdefault((family, held_out), []).append(table)
    names = Names(catalogue)
    return [_joined(family, held_out, members, names) for (family, held_out), members in families.items()]


def _split(table: Table) -> tuple[str, str, str]:
    """Data set, split and, if it is one of those, the remark about held-out images."""
    match = SPLIT.fullmatch(table.benchmark)
    return (match[1].strip("-"), match[2], match[3] or "") if match else (table.benchmark, "", "")


def _joined(family: str, held_out: str, tables: Sequence[Table], names: "Names") -> Table:
    tables = sorted(tables, key=_many_first)
    chosen = [_columns(table) for table in tables]
    columns = [
        table.columns[index]._replace(heading=f"{split} {table.columns[index].heading}".strip(), over=split)
        for table, indices, split in zip(tables, chosen, _titles(tables), strict=True)
        for index in indices
    ]
    lines: dict[tuple[object, ...], _Line] = {}
    unfinished = 0
    for number, (table, indices) in enumerate(zip(tables, chosen, strict=True)):
        unfinished += sum(bool(row.progress) for row in table.rows)
        seen: dict[tuple[object, ...], int] = {}
        for row, cells in _with_second(table, indices):
            key = (row.source, row.strategy, row.note, row.backbone, row.foreign)
            seen[key] = seen.get(key, 0) + 1
            lines.setdefault((*key, seen[key]), _Line({})).parts[number] = Part(row, cells)
    rows = [_row(line, [len(indices) for indices in chosen], names) for line in _ordered(lines)]
    own = (re.sub(r"; all fg: [^;]*", "", note) for table in tables for note in table.notes)  # a column left out
    notes = [note for note in dict.fromkeys(own) if not note.startswith("time of a first step")]
    notes += [f"{unfinished} unfinished runs left out"] if unfinished else []
    return Table(f"{family}{held_out}", tuple(columns), tuple(rows), tuple(notes))


def _many_first(table: Table) -> tuple[int, int]:
    """19-1 before 15-5, and that before 15-1."""
    steps = table.layout.steps if table.layout else ()
    return -len(steps[0]) if steps else 0, len(steps)


def _titles(tables: Sequence[Table]) -> list[str]:
    """The splits as papers write them, `15-5s` as 15-1, where they do not become alike."""
    own = [_split(table)[1] for table in tables]
    common = [re.sub(r"-\d+s$", "-1", split) for split in own]
    return [theirs if common.count(theirs) == 1 else ours for ours, theirs in zip(own, common, strict=True)]


def _columns(table: Table) -> list[int]:
    """The columns of base, added and all, as far as there are: of two for all the first one."""
    parts = [column.part for column in table.columns]
    return [parts.index(part) for part in PARTS if part in parts]


def _with_second(table: Table, indices: Sequence[int]) -> Iterator[tuple[Row, tuple[Cell, ...]]]:
    """Finished rows with their chosen cells, those of the second-best value marked."""
    second = {index: _second(table.columns[index], table.rows, index) for index in indices}
    for row in (row for row in table.rows if not row.progress):
        cells = []
        for index in indices:
            cell = row.cells[index]
            shown = None if cell.mean is None or not row.ranked else rounded(table.columns[index], cell.mean)
            cells.append(cell._replace(close=False, second=shown is not None and shown == second[index]))
        yield row, tuple(cells)


def _second(column: Column, rows: Iterable[Row], index: int) -> float | None:
    """The second-highest value that ranked rows show; None where there are fewer than three."""
    values = [rounded(column, mean) for row in rows if row.ranked and (mean := row.cells[index].mean) is not None]
    return sorted({*values}, reverse=True)[1] if len(values) > 2 and len({*values}) > 1 else None


def _ordered(lines: Mapping[tuple[object, ...], _Line]) -> list[_Line]:
    """Lines of ours in order of appearance, joint last; published ones below the first of their method."""
    ours = [(key, line) for key, line in lines.items() if not key[0]]
    ours.sort(key=lambda item: main_name(str(item[0][1])) == UPPER_BOUND)
    result, left = [], {key: line for key, line in lines.items() if key[0]}
    for key, line in ours:
        result.append(line)
        published = [other for other in left if other[1] == key[1]]
        result += [left.pop(other) for other in published]
    return [*result, *left.values()]


def _row(line: _Line, widths: Sequence[int], names: "Names") -> Row:
    """A line as a row of the wide table."""
    first = next(iter(line.parts.values())).row
    empty = [tuple(Cell(None) for _ in range(width)) for width in widths]
    cells = [line.parts[number].cells if number in line.parts else own for number, own in enumerate(empty)]
    rows = [part.row for part in line.parts.values()]
    return replace(
        first,
        strategy=first.strategy if first.foreign else names.display(first.strategy),
        cells=tuple(cell for of_part in cells for cell in of_part),
        seeds=tuple(sorted({seed for row in rows for seed in row.seeds})),
        has_fewer_seeds=any(row.has_fewer_seeds for row in rows),
        cites=() if first.foreign or first.source else names.cites(first.strategy),
    )


class Names:
    """Display names and citations of strategies and plugins, from their recipes."""

    def __init__(self, catalogue: Path | None):
        self.recipes = strategy_recipes(catalogue)

    def display(self, strategy: str) -> str:
        """`MiB + DeepInversion` for `mib+deepinversion`; a name without a recipe stays."""
        return " + ".join(map(self._name, self._parts(strategy)))

    def cites(self, strategy: str) -> tuple[str, ...]:
        """The keys of the BibTeX entries that `densecl cite` prints."""
        known = [self.recipes[name] for name in self._parts(strategy) if name in self.recipes]
        return tuple(dict.fromkeys(key for recipe in known for key in KEY.findall(recipe.bibtex)))

    def _name(self, name: str) -> str:
        if name not in self.recipes:
            return name
        recipe = self.recipes[name]
        return recipe.display or recipe.class_.rpartition(":")[2].removesuffix("Plugin")

    @staticmethod
    def _parts(strategy: str) -> list[str]:
        try:
            return [call.name for call in parse(strategy)]
        except SpecError:
            return [strategy]
