"""Published numbers in our tables: beside ours where the protocol agrees, else in a footnote that says what differs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from densecl.metrics.grouping import GROUPINGS
from densecl.records.layout import Layout, method_name
from densecl.records.published import PARTS, Part, Reported, canonical
from densecl.tables.agreement import mismatches
from densecl.tables.columns import Column
from densecl.tables.table import Cell, Row, Table


class Apart(NamedTuple):
    """A published row that cannot be compared with one of ours, and why."""

    ours: str
    theirs: Reported
    faults: tuple[str, ...]


def against(tables: Sequence[Table], reported: Sequence[Reported], group: str | None = None) -> list[Table]:
    """The tables with a row of reported numbers, and our difference to them, below each of our rows they compare to.

    Args:
        tables: of `densecl.tables.table.rows`, not per step.
        reported: of `densecl.records.published.read_all`.
        group: the grouping that `tables` were made with.
    """
    return [_beside(table, reported, group) for table in tables]


def candidates(row: Row, reported: Sequence[Reported]) -> list[Reported]:
    """Published rows about the row's method and split: those of its setting, else of any; of its data, else of any."""
    record = row.record
    if record is None or row.progress:
        return []
    family, split = canonical(record.benchmark)
    method = method_name(record.strategy)
    found = [r for r in reported if r.values and r.method == method and canonical(r.benchmark)[1] == split]
    setting = record.settings.get("stream", {}).get("setting")
    for narrower in (
        [r for r in found if canonical(r.benchmark)[0] == family],
        [r for r in found if r.setting in (None, setting)],
    ):
        found = [r for r in found if r in narrower] or found
    return found


def _beside(table: Table, reported: Sequence[Reported], group: str | None) -> Table:
    lines: list[Row] = []
    remarks: list[str] = []
    apart: list[Apart] = []
    nothing: list[str] = []
    layout = table.layout or Layout((), False)
    for row in table.rows:
        lines.append(row)
        if row.record is None or row.progress:
            continue
        found = candidates(row, reported)
        if not found:
            nothing.append(row.strategy)
        name = f"{row.strategy} {row.note}".strip()
        compared = [Apart(name, theirs, tuple(mismatches(row.record, theirs, group))) for theirs in found]
        for _, theirs, faults in compared:
            if not faults:
                lines.append(_line(row, theirs, table.columns, layout))
                remarks += _about(theirs, table.columns, layout)
        if found and canonical(found[0].benchmark)[0] != canonical(row.record.benchmark)[0]:
            compared = [min(compared, key=_distance)]  # on other data the nearest row says enough
        apart += [one for one in compared if one.faults]
    if any(line.source for line in lines):
        remarks.insert(0, "reported by: numbers of papers, in brackets ours minus theirs")
    for label in dict.fromkeys(one.theirs.label for one in apart):
        remarks.append(_footnote(label, [one for one in apart if one.theirs.label == label]))
    if nothing:
        remarks.append(f"nothing published is known for {', '.join(dict.fromkeys(nothing))}")
    return replace(table, rows=tuple(lines), notes=(*table.notes, *dict.fromkeys(remarks)))


def _distance(one: Apart) -> tuple[bool, int]:
    """How far a published row is from ours; one whose protocol is not known cannot be the nearest."""
    vague = any(fault.endswith("not stated") or fault.startswith("grouping ") for fault in one.faults)
    return vague, len(one.faults)


def _footnote(label: str, apart: Sequence[Apart]) -> str:
    """One table's numbers that are not compared: what differs for all of our rows, then what for some."""
    numbers = dict.fromkeys(f"{one.theirs.method} {_numbers(one.theirs)}" for one in apart)
    common = [fault for fault in apart[0].faults if all(fault in one.faults for one in apart)]
    text = f"not compared: {label} ({', '.join(numbers)}): {', '.join(common)}"
    further: dict[str, list[str]] = {}
    for one in apart:
        own = ", ".join(fault for fault in one.faults if fault not in common)
        if own:
            further.setdefault(own, []).append(one.ours)
    return text + "".join(f"; {', '.join(dict.fromkeys(names))}: {own}" for own, names in further.items())


def _line(row: Row, theirs: Reported, columns: Sequence[Column], layout: Layout) -> Row:
    """The published numbers as a row, each in the column that averages the same classes."""
    cells = []
    for column, ours in zip(columns, row.cells, strict=True):
        value = _value(theirs, column, layout)
        if value is None:
            cells.append(Cell(None))
        else:
            difference = None if ours.mean is None else ours.mean - value / 100
            cells.append(Cell(value / 100, difference=difference))
    return Row(row.strategy, "", row.backbone, (), tuple(cells), source=theirs.label)


def _value(theirs: Reported, column: Column, layout: Layout) -> float | None:
    if not column.part or _labels(theirs, column.part, layout) != column.labels:
        return None
    return getattr(theirs.values, column.part)


def _labels(theirs: Reported, part: Part, layout: Layout) -> tuple[int, ...]:
    """The labels that one of the paper's columns averages."""
    assert theirs.grouping is not None
    grouping = GROUPINGS[theirs.grouping]
    if part == "base":
        return layout.with_background(layout.base, grouping.base)
    return layout.added if part == "added" else layout.with_background(layout.classes, grouping.overall)


def _about(theirs: Reported, columns: Sequence[Column], layout: Layout) -> list[str]:
    """What to know of numbers that are shown."""
    remarks = []
    shown: list[Part] = [part for part in PARTS if getattr(theirs.values, part) is not None]
    for certainty in ("computed", "from memory"):
        parts = [part for part in shown if theirs.sure(part) == certainty]
        if parts:
            remarks.append(f"{theirs.label}: {', '.join(parts)} {certainty}")
    if any(_labels(theirs, p, layout) not in [c.labels for c in columns if c.part == p] for p in shown):
        remarks.append(f"{theirs.label}: some means count background otherwise, see --group {theirs.grouping}")
    if not theirs.consistent:
        remarks.append(f"{theirs.label}: base and added, as printed, do not average to all")
    if theirs.inferred:
        remarks.append(f"{theirs.label}: {', '.join(theirs.inferred)} inferred, not stated")
    if theirs.remark:
        remarks.append(f"{theirs.label}: {theirs.remark}")
    return remarks


def _numbers(theirs: Reported) -> str:
    """`75.5/49.4/69.0`, with a dash for what is not given and a mark for what was not read."""
    marks = {"read": "", "computed": "c", "from memory": "m"}
    places = max(0, round(-math.log10(theirs.rounding)))
    texts: list[str] = []
    for part in PARTS:
        value = getattr(theirs.values, part)
        texts.append("-" if value is None else f"{value:.{places}f}{marks[theirs.sure(part)]}")
    return "/".join(texts)
