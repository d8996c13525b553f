"""Records -> tables: a row a set-up, mean and standard deviation over seeds, columns by range of classes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from densecl.records.layout import UPPER_BOUND, Layout, by_benchmark, clean, main_name, ranges
from densecl.records.record import Record
from densecl.tables import provenance
from densecl.tables import sequences as sequence
from densecl.tables.columns import Cell, Column, rounded
from densecl.tables.group import SetUp, Unit, averaged_keys, set_ups
from densecl.tables.measure import View, columns, lacks_confusion, measure
from densecl.tables.notes import Setup, notes
from densecl.tables.rank import Entry, marked

__all__ = ["Cell", "Row", "Table", "rounded", "rows"]

ORDER = ("finetune", "lwf", "ilt", "mib")  # then all others by their mean, then joint


@dataclass(frozen=True)
class Row:
    """Runs that differ by their seed alone (or by what is averaged over); or, where `source` says so, what a paper
    reports of such runs.
    """

    strategy: str
    note: str  # settings that differ from those of most rows
    backbone: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    progress: str = ""  # of a run that has not finished: "step 2 of 6"
    oracle: str | None = None  # what the strategy is told at test time
    source: str = ""  # "MiB, Table 1": published numbers
    record: Record | None = field(default=None, repr=False, compare=False)  # one of the runs
    units: tuple[Unit, ...] = field(default=(), repr=False, compare=False)  # what tells the runs apart

    @property
    def ranked(self) -> bool:
        """Whether the row takes part in the search for the best."""
        apart = self.progress or self.source or self.oracle is not None
        return not apart and main_name(self.strategy) != UPPER_BOUND


@dataclass(frozen=True)
class Table:
    """All rows of one benchmark."""

    benchmark: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    layout: Layout | None = field(default=None, repr=False, compare=False)


def rows(
    records: Sequence[Record],
    per_step: bool = False,
    *,
    group: str | None = None,
    labels: str | None = None,
    paper: bool = False,
    over: Sequence[str] = (),
) -> list[Table]:
    """One table a benchmark, in order of name.

    Runs of one set-up are averaged whatever code and machine they come from; a footnote says where those differ, and
    `densecl.tables.provenance.refuse` stops before.

    Args:
        records: of any benchmarks.
        per_step: columns are the mIoU of all seen classes after each step; of sequences, each task's score.
        group: a grouping of `densecl.metrics.GROUPINGS`; None: see `View`.
        labels: a label preset, whose evaluation half is applied to the kept confusion matrices; None: as recorded.
        paper: sequences of tasks in the layout of Matsumoto and Yanai's tables.
        over: settings that runs of a row may differ by, such as `stream.order`; short names will do.

    Raises:
        UnknownNameError: no such grouping or preset.
        SettingError: no such setting.
    """
    view = View(group, labels, per_step, paper)
    keys = averaged_keys(records, over)
    groups = by_benchmark(records)
    return [_table(benchmark, layout, members, view, keys) for (benchmark, layout), members in groups.items()]


def _table(benchmark: str, layout: Layout, records: Sequence[Record], view: View, over: Sequence[str]) -> Table:
    found = set_ups(records, over)
    of = columns(layout, records, view)
    texts = notes([Setup(one.runs[0].strategy, one.runs[0].backbone, one.settings) for one in found])
    lines = [_row(one, note, of, layout, view) for one, note in zip(found, texts, strict=True)]
    names = [f"{row.strategy} {row.note}".strip() for row in lines]
    remarks = [*_remarks(layout, found, view), *provenance.remarks(found, names, over), *_over(found, over)]
    lines.sort(key=lambda row: _place(row, of))
    kept = [index for index in range(len(of)) if any(row.cells[index].mean is not None for row in lines)]
    shown = tuple(of[index] for index in kept)
    cells = [marked(of[i], [Entry(row.cells[i], row.units, row.ranked) for row in lines]) for i in kept]
    ranked = tuple(replace(row, cells=tuple(column[k] for column in cells)) for k, row in enumerate(lines))
    return Table(clean(benchmark), shown, ranked, tuple(remarks), layout)


def _row(one: SetUp, note: str, of: Sequence[Column], layout: Layout, view: View) -> Row:
    measured = [measure(record, layout, of, view) for record in one.runs]
    first = one.runs[0]
    return Row(
        strategy=clean(first.strategy),
        note=clean(note),
        backbone=clean(first.backbone),
        seeds=tuple(record.seed for record in one.runs),
        cells=tuple(_cell([values.get(column.heading) for values in measured]) for column in of),
        progress=_progress(first, layout),
        oracle=None if first.oracle is None or first.tasks else clean(first.oracle),  # of a sequence all are told it
        record=first,
        units=one.units,
    )


def _progress(record: Record, layout: Layout) -> str:
    if record.status == "finished":
        return ""
    done, planned = len(record.steps), len(layout.steps)
    if main_name(record.strategy) == UPPER_BOUND or planned < max(done, 1):
        return f"{done} steps"
    return f"step {done} of {planned}"


def _cell(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    if not known:
        return Cell(None)
    std = statistics.stdev(known) if len(known) > 1 else None
    return Cell(statistics.fmean(known), std, values=tuple(values))


def _place(row: Row, of: Sequence[Column]) -> tuple[Any, ...]:
    name = main_name(row.strategy)
    plain = "+" not in row.strategy
    overall = next((c.mean for column, c in zip(of, row.cells, strict=True) if column.heading == "all"), None)
    overall = row.cells[-1].mean if overall is None and row.cells else overall
    known = ORDER.index(name) if plain and name in ORDER else len(ORDER)
    return name == UPPER_BOUND, known, bool(row.progress), -1.0 if overall is None else overall, row.strategy, row.note


def _remarks(layout: Layout, found: Sequence[SetUp], view: View) -> list[str]:
    records = [record for one in found for record in one.runs]
    copies = sum(len(one.copies) for one in found)
    left_out = [f"{copies} further runs of the same set-up and seed left out"] if copies else []
    if records[0].tasks:
        return [*(sequence.PAPER if view.paper else sequence.REMARKS), *left_out]
    remarks = [_counted(layout, view)]
    if view.labels is not None:
        remarks.append(f"classes not learnt yet are scored as under {view.labels}, whatever a run was scored with")
        without = sum(lacks_confusion(record) for record in records)
        if without:
            remarks.append(f"{without} runs kept no confusion matrix and cannot be scored under {view.labels}")
    if any(main_name(record.strategy) == UPPER_BOUND for record in records):
        remarks.append("joint learns all classes at once and is not ranked")
    oracles = sorted({clean(record.oracle) for record in records if record.oracle is not None})
    remarks += [f"† is told the {oracle} at test time and is not ranked" for oracle in oracles]
    if not view.per_step and any(step.shared for record in records for step in record.steps):
        remarks.append("time of a first step that was loaded is that of the run that trained it")
    return [*remarks, *left_out]


def _over(found: Sequence[SetUp], over: Sequence[str]) -> list[str]:
    """What the means are over besides seeds."""
    if not over:
        return []
    counts = [len({unit[1 + index] for one in found for unit in one.units}) for index in range(len(over))]
    listed = ", ".join(f"{key} ({n} values)" for key, n in zip(over, counts, strict=True))
    return [f"averaged over {listed} too: such runs count as further seeds"]


def _counted(layout: Layout, view: View) -> str:
    """What the means are over."""
    group, everything = view.grouping, view.everything(layout)
    if view.per_step:
        zero = ", background counted" if 0 in everything else ""
        return f"mIoU in % of all classes seen so far{zero}"
    parts = ["mIoU in %" if group is None else f"mIoU in %, {view.group}: {group.summary}"]
    if layout.classes:
        parts.append(f"all: {ranges(everything)}{', 0 is background' if 0 in everything else ''}")
    if group is None and layout.classes and layout.has_background:
        parts.append(f"all fg: {ranges(layout.classes)}")
    return "; ".join(parts)
