"""Published numbers in our tables: beside ours where the protocol agrees, else in a footnote that says what differs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from densecl.records.layout import Layout, method_name
from densecl.records.published import PARTS, Part, Reported, canonical
from densecl.records.record import Record, flatten
from densecl.tables.agreement import mismatches
from densecl.tables.columns import Cell
from densecl.tables.groupings import grouping
from densecl.tables.table import Row, Table

MARKS = {"read": "", "computed": "c", "from memory": "m"}  # of numbers in footnotes


class Compared(NamedTuple):
    """A row of ours, a published one about the same method, and what keeps them from being compared."""

    ours: str
    theirs: Reported
    faults: tuple[str, ...]

    @property
    def distance(self) -> tuple[bool, int]:
        """The number of differences; a published row whose protocol is not known cannot be the nearest."""
        vague = any(fault.endswith("not stated") or fault.startswith("grouping ") for fault in self.faults)
        return vague, len(self.faults)


def against(tables: Sequence[Table], reported: Sequence[Reported], group: str | None = None) -> list[Table]:
    """Tables made with `group`, with reported numbers and our difference to them below each row they compare to."""
    return [_beside(table, reported, group) for table in tables]


def _beside(table: Table, reported: Sequence[Reported], group: str | None) -> Table:
    lines: list[Row] = []
    remarks: list[str] = []
    apart: list[Compared] = []
    unreported: dict[str, None] = {}
    for row in table.rows:
        lines.append(row)
        if not row.runs or row.progress:
            continue
        record = row.runs[0]
        rows = _candidates(record, reported)
        compared = [Compared(row.name, theirs, tuple(mismatches(record, theirs, group))) for theirs in rows]
        if not compared:
            unreported[row.strategy] = None
            continue
        for _, theirs, faults in compared:
            if not faults:
                lines.append(_line(row, theirs, table))
                remarks += [f"{theirs.label}: {text}" for text in _about(theirs, table)]
        if canonical(rows[0].benchmark)[0] != canonical(record.benchmark)[0]:
            compared = [min(compared, key=lambda pair: pair.distance)]  # on other data the nearest row says enough
        apart += [pair for pair in compared if pair.faults]
    if any(line.source for line in lines):
        remarks.insert(0, "reported by: numbers of papers, in brackets ours minus theirs")
    for label in dict.fromkeys(pair.theirs.label for pair in apart):
        remarks.append(_footnote(label, [pair for pair in apart if pair.theirs.label == label]))
    if unreported:
        remarks.append(f"nothing published is known for {', '.join(unreported)}")
    return replace(table, rows=tuple(lines), notes=(*table.notes, *dict.fromkeys(remarks)))


def _candidates(record: Record, reported: Sequence[Reported]) -> list[Reported]:
    """Published rows about a run's method and split: those of its setting, else of any; of its data, else of any."""
    family, split = canonical(record.benchmark)
    method = method_name(record.strategy)
    setting = flatten(record.settings).get("stream.setting")
    rows = [r for r in reported if r.values and r.method == method and canonical(r.benchmark)[1] == split]
    rows = [r for r in rows if canonical(r.benchmark)[0] == family] or rows
    return [r for r in rows if r.setting in (None, setting)] or rows


def _columns(theirs: Reported, table: Table) -> dict[str, int]:
    """The column that averages the same classes, for each part of a paper's table that has one."""
    assert theirs.grouping is not None
    columns = grouping(theirs.grouping).columns(table.layout or Layout((), False))
    wanted = {(column.part, column.labels) for column in columns}
    return {c.part: index for index, c in enumerate(table.columns) if (c.part, c.labels) in wanted}


def _line(row: Row, theirs: Reported, table: Table) -> Row:
    """The published numbers as a row."""
    cells = [Cell(None)] * len(table.columns)
    for part, index in _columns(theirs, table).items():
        value, ours = getattr(theirs.values, part), row.cells[index].mean
        if value is not None:
            cells[index] = Cell(value / 100, difference=None if ours is None else ours - value / 100)
    return Row(row.strategy, "", row.backbone, (), tuple(cells), source=theirs.label)


def _about(theirs: Reported, table: Table) -> list[str]:
    """Footnotes about numbers that are shown."""
    texts = []
    shown: list[Part] = [part for part in PARTS if getattr(theirs.values, part) is not None]
    for certainty in ("computed", "from memory"):
        parts = [part for part in shown if theirs.sure(part) == certainty]
        if parts:
            texts.append(f"{', '.join(parts)} {certainty}")
    if not set(shown) <= _columns(theirs, table).keys():
        texts.append(f"some means count background otherwise, see --group {theirs.grouping}")
    if not theirs.consistent:
        texts.append("base and added, as printed, do not average to all")
    if theirs.inferred:
        texts.append(f"{', '.join(theirs.inferred)} inferred, not stated")
    return [*texts, theirs.remark] if theirs.remark else texts


def _footnote(label: str, apart: Sequence[Compared]) -> str:
    """The numbers of one published table that are not compared: differences of all of our rows, then of some."""
    numbers = dict.fromkeys(f"{pair.theirs.method} {_numbers(pair.theirs)}" for pair in apart)
    common = [fault for fault in apart[0].faults if all(fault in pair.faults for pair in apart)]
    text = f"not compared: {label} ({', '.join(numbers)}): {', '.join(common)}"
    further: dict[str, dict[str, None]] = {}
    for pair in apart:
        own = ", ".join(fault for fault in pair.faults if fault not in common)
        if own:
            further.setdefault(own, {})[pair.ours] = None
    return text + "".join(f"; {', '.join(names)}: {own}" for own, names in further.items())


def _numbers(theirs: Reported) -> str:
    """`75.5/49.4/69.0`, with a dash for an absent number and a mark for one that was not read."""
    places = max(0, round(-math.log10(theirs.rounding)))
    values: list[tuple[Part, float | None]] = [(part, getattr(theirs.values, part)) for part in PARTS]
    return "/".join("-" if v is None else f"{v:.{places}f}{MARKS[theirs.sure(part)]}" for part, v in values)
