"""Records -> tables: a row a set-up, mean and standard deviation over seeds, columns by range of classes."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from densecl.reporting import sequence
from densecl.reporting.columns import Column
from densecl.reporting.layout import UPPER_BOUND, Layout, clean, layout_of, main_name, ranges
from densecl.reporting.measure import View, columns, lacks_confusion, measure
from densecl.reporting.notes import Setup, notes
from densecl.reporting.record import Record, identity

ORDER = ("finetune", "lwf", "ilt", "mib")  # then all others by their mean, then joint


class Cell(NamedTuple):
    """Mean and standard deviation (n - 1) over seeds; `std` is None for one seed, `mean` where nothing was measured.

    `difference` is only in rows of published numbers: our mean minus theirs.
    """

    mean: float | None
    std: float | None = None
    best: bool = False
    difference: float | None = None


@dataclass(frozen=True)
class Row:
    """Runs that differ by their seed alone; or, where `source` says so, what a paper reports of such runs."""

    strategy: str
    note: str  # settings that differ from those of most rows
    backbone: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    progress: str = ""  # of a run that has not finished: "step 2 of 6"
    oracle: str | None = None  # what the strategy is told at test time
    source: str = ""  # "MiB, Table 1": published numbers
    record: Record | None = field(default=None, repr=False, compare=False)  # one of the runs

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
) -> list[Table]:
    """One table a benchmark, in order of name.

    Args:
        records: of any benchmarks.
        per_step: columns are the mIoU of all seen classes after each step; of sequences, each task's score.
        group: a grouping of `densecl.metrics.GROUPINGS`; None: see `View`.
        labels: a label preset, whose evaluation half is applied to the kept confusion matrices; None: as recorded.
        paper: sequences of tasks in the layout of Matsumoto and Yanai's tables.

    Raises:
        UnknownNameError: no such grouping or preset.
    """
    view = View(group, labels, per_step, paper)
    groups: dict[tuple[str, Layout], list[Record]] = {}
    for record in records:
        groups.setdefault((record.benchmark, layout_of(record, records)), []).append(record)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[0][1].steps))
    return [_table(benchmark, layout, members, view) for (benchmark, layout), members in ordered]


def _table(benchmark: str, layout: Layout, records: Sequence[Record], view: View) -> Table:
    setups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        settings = json.dumps(identity(record), sort_keys=True)
        alone = "" if record.status == "finished" else f"{record.seed} {record.hash}"
        setups.setdefault((record.strategy, record.backbone, settings, alone), []).append(record)
    groups = [_one_a_seed(group) for group in setups.values()]
    of = columns(layout, records, view)
    texts = notes([Setup(group[0].strategy, group[0].backbone, identity(group[0])) for group in groups])
    lines = [_row(group, note, of, layout, view) for group, note in zip(groups, texts, strict=True)]
    lines.sort(key=lambda row: _place(row, of))
    kept = [index for index in range(len(of)) if any(row.cells[index].mean is not None for row in lines)]
    best = [_best(of[index], [row.cells[index].mean for row in lines if row.ranked]) for index in kept]
    marked = tuple(_mark(row, kept, best, of) for row in lines)
    left_out = len(records) - sum(len(group) for group in groups)
    remarks = _remarks(layout, [record for group in groups for record in group], left_out, view)
    return Table(clean(benchmark), tuple(of[i] for i in kept), marked, remarks, layout)


def _one_a_seed(records: Sequence[Record]) -> list[Record]:
    """One record a seed, so that a copied folder does not count as a further seed; the one with more steps stays."""
    chosen: dict[int, Record] = {}
    for record in records:
        if record.seed not in chosen or len(record.steps) > len(chosen[record.seed].steps):
            chosen[record.seed] = record
    return [chosen[seed] for seed in sorted(chosen)]


def _row(group: Sequence[Record], note: str, of: Sequence[Column], layout: Layout, view: View) -> Row:
    measured = [measure(record, layout, of, view) for record in group]
    first = group[0]
    return Row(
        strategy=clean(first.strategy),
        note=clean(note),
        backbone=clean(first.backbone),
        seeds=tuple(record.seed for record in group),
        cells=tuple(_cell([values.get(column.heading) for values in measured]) for column in of),
        progress=_progress(first, layout),
        oracle=None if first.oracle is None or first.tasks else clean(first.oracle),  # of a sequence all are told it
        record=first,
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
    return Cell(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def _place(row: Row, of: Sequence[Column]) -> tuple[Any, ...]:
    name = main_name(row.strategy)
    plain = "+" not in row.strategy
    overall = next((c.mean for column, c in zip(of, row.cells, strict=True) if column.heading == "all"), None)
    overall = row.cells[-1].mean if overall is None and row.cells else overall
    known = ORDER.index(name) if plain and name in ORDER else len(ORDER)
    return name == UPPER_BOUND, known, bool(row.progress), -1.0 if overall is None else overall, row.strategy, row.note


def rounded(column: Column, value: float) -> float:
    """`value` as it is shown, so that rows that look equal rank equal."""
    return round(100 * value, 1) + 0.0 if column.kind == "share" else value


def _best(column: Column, values: Sequence[float | None]) -> float | None:
    known = [rounded(column, value) for value in values if value is not None]
    if len(known) < 2 or not column.better:
        return None
    return max(known) if column.better == "higher" else min(known)


def _mark(row: Row, kept: Sequence[int], best: Sequence[float | None], of: Sequence[Column]) -> Row:
    cells = []
    for index, winner in zip(kept, best, strict=True):
        cell = row.cells[index]
        wins = row.ranked and winner is not None and cell.mean is not None and rounded(of[index], cell.mean) == winner
        cells.append(cell._replace(best=wins))
    return replace(row, cells=tuple(cells))


def _remarks(layout: Layout, records: Sequence[Record], left_out: int, view: View) -> tuple[str, ...]:
    if records[0].tasks:
        remarks = list(sequence.PAPER if view.paper else sequence.REMARKS)
        return (*remarks, f"{left_out} further runs of the same set-up and seed left out") if left_out else (*remarks,)
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
    if left_out:
        remarks.append(f"{left_out} further runs of the same set-up and seed left out")
    return tuple(remarks)


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
