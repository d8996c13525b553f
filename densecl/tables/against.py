"""Published numbers in our tables: beside ours where the protocol agrees, else in a footnote that says what differs."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import NamedTuple

from densecl.records.layout import Layout, method_name
from densecl.records.published import Reported, canonical
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
    elsewhere: list[Reported] = []
    unreported: dict[str, None] = {}
    for row in table.rows:
        lines.append(row)
        if not row.runs or row.progress:
            continue
        record = row.runs[0]
        pairs = [
            Compared(row.name, theirs, tuple(mismatches(record, theirs, group)))
            for theirs in _candidates(record, reported, {column.score[1] for column in table.columns if column.score})
        ]
        if not pairs:
            unreported[row.strategy] = None
            continue
        for theirs in _by_source(pair.theirs for pair in pairs if not pair.faults):
            columns = [_columns(one, table) for one in theirs]
            if any(columns):
                lines.append(_line(row, theirs, columns, table))
                remarks += [f"{one.label}: {text}" for one in theirs for text in _about(one, table)]
            elsewhere += [one for one, found in zip(theirs, columns, strict=True) if not found]
        apart += _nearest([pair for pair in pairs if pair.faults], canonical(record.benchmark)[0])
    if any(line.source for line in lines):
        remarks.insert(0, "reported by: numbers of papers, in brackets ours minus theirs")
    for label in dict.fromkeys(pair.theirs.label for pair in apart):
        remarks.append(_footnote(label, [pair for pair in apart if pair.theirs.label == label]))
    for theirs in _by_source(elsewhere):
        numbers = "; ".join(dict.fromkeys(f"{one.about} {_numbers(one)}" for one in theirs))
        remarks.append(f"{theirs[0].label}, of which there is no column here: {numbers}")
    if unreported:
        remarks.append(f"nothing published is known for {', '.join(unreported)}")
    return replace(table, rows=tuple(lines), notes=(*table.notes, *dict.fromkeys(remarks)))


def _candidates(record: Record, reported: Sequence[Reported], scores: Set[str]) -> list[Reported]:
    """Published rows about a run's method and split: those of its setting, else of any; of its data, else of any.

    Of a sequence of tasks they are about tasks that the run has; on other data they have one of its `scores`.
    """
    family, split = canonical(record.benchmark)
    method = method_name(record.strategy)
    setting = flatten(record.settings).get("stream.setting")
    rows = [r for r in reported if r.method == method and canonical(r.benchmark)[1] == split]
    if record.tasks:
        rows = [r for r in rows if max(r.task or 0, r.after or 0) <= len(record.tasks)]
        return [r for r in rows if canonical(r.benchmark)[0] == family or scores & r.measures.keys()]
    rows = [r for r in rows if canonical(r.benchmark)[0] == family] or rows
    return [r for r in rows if r.setting in (None, setting)] or rows


def _by_source(rows: Iterable[Reported]) -> list[list[Reported]]:
    """Rows of one table of a paper together: of a sequence a row has one task."""
    sources: dict[str | int, list[Reported]] = {}
    for row in rows:
        sources.setdefault(row.label if row.measures else id(row), []).append(row)
    return list(sources.values())


def _nearest(pairs: Sequence[Compared], family: str) -> list[Compared]:
    """All pairs on a run's own data; on other data the nearest, which says enough, of sequences of each paper."""
    nearest: dict[str, Compared] = {}
    for pair in pairs:
        if canonical(pair.theirs.benchmark)[0] != family:
            paper = pair.theirs.name if pair.theirs.measures else ""
            nearest[paper] = min(nearest.get(paper, pair), pair, key=lambda each: each.distance)
    return [pair for pair in pairs if canonical(pair.theirs.benchmark)[0] == family] + list(nearest.values())


def _columns(theirs: Reported, table: Table) -> dict[str, int]:
    """The column of each of the published numbers: the one that averages the same classes, or has the same score."""
    if theirs.values is None:
        scores = [column.score for column in table.columns]
        keys = {name: (theirs.task, name, theirs.after or theirs.task) for name in theirs.measures}
        return {name: scores.index(key) for name, key in keys.items() if key in scores}
    assert theirs.grouping is not None
    columns = grouping(theirs.grouping).columns(table.layout or Layout((), False))
    wanted = {(column.part, column.labels) for column in columns}
    return {c.part: index for index, c in enumerate(table.columns) if c.part and (c.part, c.labels) in wanted}


def _line(row: Row, theirs: Sequence[Reported], columns: Sequence[Mapping[str, int]], table: Table) -> Row:
    """The numbers of one source as a row."""
    cells = [Cell(None)] * len(table.columns)
    for reported, of_numbers in zip(theirs, columns, strict=True):
        for name, index in of_numbers.items():
            value, ours = reported.numbers[name], row.cells[index].mean
            if value is not None:
                value /= 100 if table.columns[index].kind == "share" else 1
                cells[index] = Cell(value, difference=None if ours is None else ours - value)
    return Row(row.strategy, "", row.backbone, (), tuple(cells), source=theirs[0].label)


def _about(theirs: Reported, table: Table) -> list[str]:
    """Footnotes about numbers that are shown."""
    shown = [name for name, value in theirs.numbers.items() if value is not None]
    texts = ["the training recipe is not stated"] if not theirs.states_training else []
    for certainty in ("computed", "from memory"):
        parts = [name for name in shown if theirs.sure(name) == certainty]
        if parts:
            texts.append(f"{', '.join(parts)} {certainty}")
    if theirs.values is not None and not set(shown) <= _columns(theirs, table).keys():
        texts.append(f"some means count background otherwise, see --group {theirs.grouping}")
    if not theirs.consistent:
        texts.append("base and added, as printed, do not average to all")
    if theirs.inferred:
        texts.append(f"{', '.join(theirs.inferred)} inferred, not stated")
    return [*texts, theirs.remark] if theirs.remark else texts


def _footnote(label: str, apart: Sequence[Compared]) -> str:
    """The numbers of one published table that are not compared: differences of all of our rows, then of some."""
    numbers = dict.fromkeys(f"{pair.theirs.about} {_numbers(pair.theirs)}" for pair in apart)
    common = [fault for fault in apart[0].faults if all(fault in pair.faults for pair in apart)]
    text = f"not compared: {label} ({', '.join(numbers)}): {', '.join(common)}"
    further: dict[str, dict[str, None]] = {}
    for pair in apart:
        own = ", ".join(fault for fault in pair.faults if fault not in common)
        if own:
            further.setdefault(own, {})[pair.ours] = None
    return text + "".join(f"; {', '.join(names)}: {own}" for own, names in further.items())


def _numbers(theirs: Reported) -> str:
    """`75.5/49.4/69.0`, with a dash for an absent number and a mark for one that was not read; others with names."""
    if theirs.values is None:
        return ", ".join(f"{name} {value:g}{MARKS[theirs.certainty]}" for name, value in theirs.measures.items())
    places = max(0, round(-math.log10(theirs.rounding)))
    numbers = theirs.numbers.items()
    return "/".join("-" if v is None else f"{v:.{places}f}{MARKS[theirs.sure(part)]}" for part, v in numbers)
