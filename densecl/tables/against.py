"""Published numbers in our tables: beside ours where the protocol agrees, else in a footnote that says what differs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from densecl.records.layout import Layout, method_name
from densecl.records.published import PARTS, Part, Reported, canonical
from densecl.records.record import Record, flatten
from densecl.tables.agreement import mismatches
from densecl.tables.columns import Cell, Column
from densecl.tables.groupings import grouping
from densecl.tables.table import Row, Table

MARKS = {"read": "", "computed": "c", "from memory": "m"}  # of numbers in footnotes


class Compared(NamedTuple):
    """A row of ours, a published one about the same method, and what keeps them from being compared."""

    ours: str
    theirs: Reported
    faults: tuple[str, ...]


def against(tables: Sequence[Table], reported: Sequence[Reported], group: str | None = None) -> list[Table]:
    """The tables with a row of reported numbers, and our difference to them, below each of our rows they compare to.

    The tables show scores after the last step, and were made with the grouping `group`.
    """
    return [_beside(table, reported, group) for table in tables]


def _candidates(record: Record, reported: Sequence[Reported]) -> list[Reported]:
    """Published rows about a run's method and split: those of its setting, else of any; of its data, else of any."""
    family, split = canonical(record.benchmark)
    method = method_name(record.strategy)
    setting = flatten(record.settings).get("stream.setting")
    rows = [r for r in reported if r.values and r.method == method and canonical(r.benchmark)[1] == split]
    rows = [r for r in rows if canonical(r.benchmark)[0] == family] or rows
    return [r for r in rows if r.setting in (None, setting)] or rows


def _beside(table: Table, reported: Sequence[Reported], group: str | None) -> Table:
    lines: list[Row] = []
    remarks: list[str] = []
    apart: list[Compared] = []
    unreported: list[str] = []
    layout = table.layout or Layout((), False)
    for row in table.rows:
        lines.append(row)
        if row.record is None or row.progress:
            continue
        name = f"{row.strategy} {row.note}".strip()
        compared = [
            Compared(name, theirs, tuple(mismatches(row.record, theirs, group)))
            for theirs in _candidates(row.record, reported)
        ]
        if not compared:
            unreported.append(row.strategy)
            continue
        for _, theirs, faults in compared:
            if not faults:
                lines.append(_line(row, theirs, table.columns, layout))
                remarks += _about(theirs, table.columns, layout)
        if canonical(compared[0].theirs.benchmark)[0] != canonical(row.record.benchmark)[0]:
            compared = [min(compared, key=_distance)]  # on other data the nearest row says enough
        apart += [pair for pair in compared if pair.faults]
    if any(line.source for line in lines):
        remarks.insert(0, "reported by: numbers of papers, in brackets ours minus theirs")
    for label in dict.fromkeys(pair.theirs.label for pair in apart):
        remarks.append(_footnote(label, [pair for pair in apart if pair.theirs.label == label]))
    if unreported:
        remarks.append(f"nothing published is known for {', '.join(dict.fromkeys(unreported))}")
    return replace(table, rows=tuple(lines), notes=(*table.notes, *dict.fromkeys(remarks)))


def _distance(pair: Compared) -> tuple[bool, int]:
    """Key that puts the nearest published row first; one whose protocol is not known cannot be the nearest."""
    vague = any(fault.endswith("not stated") or fault.startswith("grouping ") for fault in pair.faults)
    return vague, len(pair.faults)


def _footnote(label: str, apart: Sequence[Compared]) -> str:
    """The numbers of one published table that are not compared: differences of all of our rows, then of some."""
    numbers = dict.fromkeys(f"{pair.theirs.method} {_numbers(pair.theirs)}" for pair in apart)
    common = [fault for fault in apart[0].faults if all(fault in pair.faults for pair in apart)]
    text = f"not compared: {label} ({', '.join(numbers)}): {', '.join(common)}"
    further: dict[str, list[str]] = {}
    for pair in apart:
        own = ", ".join(fault for fault in pair.faults if fault not in common)
        if own:
            further.setdefault(own, []).append(pair.ours)
    return text + "".join(f"; {', '.join(dict.fromkeys(names))}: {own}" for own, names in further.items())


def _line(row: Row, theirs: Reported, columns: Sequence[Column], layout: Layout) -> Row:
    """The published numbers as a row, each in the column that averages the same classes."""
    cells = []
    labels = _labels(theirs, layout)
    for column, ours in zip(columns, row.cells, strict=True):
        value = None
        if column.part and labels.get(column.part) == column.labels:
            value = getattr(theirs.values, column.part)
        if value is None:
            cells.append(Cell(None))
        else:
            cells.append(Cell(value / 100, difference=None if ours.mean is None else ours.mean - value / 100))
    return Row(row.strategy, "", row.backbone, (), tuple(cells), source=theirs.label)


def _labels(theirs: Reported, layout: Layout) -> dict[str, tuple[int, ...]]:
    """The labels that each of a paper's columns averages."""
    assert theirs.grouping is not None
    return {column.part: column.labels for column in grouping(theirs.grouping).columns(layout)}


def _about(theirs: Reported, columns: Sequence[Column], layout: Layout) -> list[str]:
    """Footnotes about numbers that are shown."""
    texts = []
    shown: list[Part] = [part for part in PARTS if getattr(theirs.values, part) is not None]
    for certainty in ("computed", "from memory"):
        parts = [part for part in shown if theirs.sure(part) == certainty]
        if parts:
            texts.append(f"{', '.join(parts)} {certainty}")
    labels = _labels(theirs, layout)
    if any(labels.get(part, ()) not in [column.labels for column in columns if column.part == part] for part in shown):
        texts.append(f"some means count background otherwise, see --group {theirs.grouping}")
    if not theirs.consistent:
        texts.append("base and added, as printed, do not average to all")
    if theirs.inferred:
        texts.append(f"{', '.join(theirs.inferred)} inferred, not stated")
    if theirs.remark:
        texts.append(theirs.remark)
    return [f"{theirs.label}: {text}" for text in texts]


def _numbers(theirs: Reported) -> str:
    """`75.5/49.4/69.0`, with a dash for an absent number and a mark for one that was not read."""
    places = max(0, round(-math.log10(theirs.rounding)))
    texts: list[str] = []
    for part in PARTS:
        value = getattr(theirs.values, part)
        texts.append("-" if value is None else f"{value:.{places}f}{MARKS[theirs.sure(part)]}")
    return "/".join(texts)
