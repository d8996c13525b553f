"""Records -> tables: one row per configuration, mean and standard deviation over seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from densecl.metrics.iou import unseen_under
from densecl.records.layout import UPPER_BOUND, Layout, Scored, by_benchmark, clean, main_name
from densecl.records.record import Record
from densecl.tables.columns import Cell, Column, marked
from densecl.tables.group import Configuration, Unit, averaged_keys, configurations, notes
from densecl.tables.groupings import grouping
from densecl.tables.measure import BothMeans, Measure, View, counting, measures
from densecl.tables.scores import Scores

FOREIGN = "§"  # marks predictions of another code
ORDER = ("finetune", "lwf", "ilt", "mib")  # then all others by their mean, then joint


@dataclass(frozen=True)
class Row:
    """Runs of one configuration; or, where `source` says so, the numbers that a paper reports of such runs."""

    strategy: str
    note: str  # settings that differ from those of most rows
    backbone: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    progress: str = ""  # of a run that has not finished: "2 of 6 steps"
    oracle: str | None = None  # what the strategy is told at test time
    source: str = ""  # "MiB, Table 1": published numbers
    held_out: bool = False  # scored on held-out training images
    has_fewer_seeds: bool = False  # than another row of its table
    cites: tuple[str, ...] = ()  # keys of BibTeX entries; only where benchmarks stand side by side
    runs: tuple[Record, ...] = field(default=(), repr=False, compare=False)
    units: tuple[Unit, ...] = field(default=(), repr=False, compare=False)  # seed and averaged settings of each run

    @property
    def name(self) -> str:
        """Strategy and note."""
        return f"{self.strategy} {self.note}".strip()

    @property
    def foreign(self) -> bool:
        """True if another code made its predictions."""
        return bool(self.runs) and self.runs[0].foreign is not None

    @property
    def ranked(self) -> bool:
        """True if the row takes part in the search for the best."""
        apart = self.progress or self.source or self.held_out or self.oracle is not None or _chosen(self.runs)
        return not apart and main_name(self.strategy) != UPPER_BOUND


@dataclass(frozen=True)
class Table:
    """All rows of one benchmark. Its text is what a wide terminal shows."""

    benchmark: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    layout: Layout | None = field(default=None, repr=False, compare=False)
    by_class: bool = False  # its columns are classes; texts show them as lines, and the rows as columns

    @property
    def is_sequence(self) -> bool:
        """True if its rows are of a sequence of tasks."""
        return any(record.tasks for row in self.rows for record in row.runs)

    def cell(self, row: Row, heading: str) -> Cell:
        """The cell of a row in a column; an empty one if there is no such column."""
        cells = zip(self.columns, row.cells, strict=True)
        return next((cell for column, cell in cells if column.heading == heading), Cell(None))

    def __str__(self) -> str:
        from densecl.tables.forms.text import render

        return render([self])

    def _repr_html_(self) -> str:
        from densecl.tables.forms.html import write

        return write([self])


def rows(
    records: Sequence[Record],
    per_step: bool = False,
    *,
    group: str | None = None,
    labels: str | None = None,
    paper: bool = False,
    per_class: bool = False,
    over: Sequence[str] = (),
) -> list[Table]:
    """One table for each benchmark, in order of name.

    Runs of one configuration are averaged whatever code and machine they come from; a footnote says where those
    differ, and `densecl.tables.provenance.refuse` stops before. They may also differ by the settings of `over`, such as
    `stream.order`. `group` is a grouping's name, or `file.py:Class` of one's own; for the other options see `View`.
    """
    if labels is not None:
        unseen_under(labels)  # refuses unknown ones
    view = View(BothMeans() if group is None else grouping(group), labels, per_step, paper, per_class)
    keys = averaged_keys(records, over)
    return [table_of(scored, members, view, keys) for scored, members in by_benchmark(records).items()]


def table_of(scored: Scored, records: Sequence[Record], view: View, over: Sequence[str] = ()) -> Table:
    """The table of records that share what `scored` says."""
    groups, layout = configurations(records, over), scored.layout
    measured = measures(layout, records, view)
    lines = [_row(runs, note, measured, scored, view) for runs, note in zip(groups, notes(groups), strict=True)]
    remarks = _remarks(scored, groups, view)
    edited = dict.fromkeys(
        row.name for row, runs in zip(lines, groups, strict=True) if any(r.edited for r in runs.runs)
    )
    remarks += [f"records changed after the run: {', '.join(edited)}"] if edited else []
    if any(len(runs.runs) + len(runs.copies) > 1 for runs in groups):
        from densecl.tables import provenance  # a table of single runs needs none

        remarks += provenance.remarks(groups, [row.name for row in lines], over)
    if over:
        values = [{unit[1 + index] for runs in groups for unit in runs.units} for index in range(len(over))]
        listed = ", ".join(f"{key} ({len(of_key)} values)" for key, of_key in zip(over, values, strict=True))
        remarks.append(f"averaged over {listed} too: such runs count as further seeds")
    lines.sort(key=lambda row: _place(row, [measure.column for measure in measured], view.per_class))
    units, takes_part = [row.units for row in lines], [row.ranked for row in lines]
    filled = [k for k in range(len(measured)) if any(row.cells[k].mean is not None for row in lines)]
    columns = tuple(measured[k].column for k in filled)
    cells = [marked(measured[k].column, [row.cells[k] for row in lines], units, takes_part) for k in filled]
    most = max((len(row.seeds) for row in lines if not row.progress), default=0)
    complete = [
        replace(
            row,
            cells=tuple(of_column[index] for of_column in cells),
            has_fewer_seeds=not row.progress and len(row.seeds) < most,
        )
        for index, row in enumerate(lines)
    ]
    return Table(scored.name, columns, tuple(complete), tuple(remarks), layout, view.per_class)


def _row(runs: Configuration, note: str, measured: Sequence[Measure], scored: Scored, view: View) -> Row:
    scores = [Scores(record, view.labels) for record in runs.runs]
    first = runs.runs[0]
    return Row(
        strategy=clean(runs.strategy),
        note=clean(note),
        backbone=clean(runs.backbone),
        seeds=tuple(record.seed for record in runs.runs),
        cells=tuple(_cell([value(run) for run in scores]) for _, value in measured),
        progress=_progress(first, scored.layout),
        oracle=None if first.oracle is None or first.tasks else clean(first.oracle),  # of a sequence all are told it
        held_out=scored.held_out,
        runs=runs.runs,
        units=runs.units,
    )


def _progress(record: Record, layout: Layout) -> str:
    if record.status == "finished":
        return ""
    done, planned = len(record.steps), len(layout.steps)
    if main_name(record.strategy) == UPPER_BOUND or planned < max(done, 1):
        return f"{done} steps"
    return f"{done} of {planned} steps"


def _cell(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    if not known:
        return Cell(None)
    std = statistics.stdev(known) if len(known) > 1 else None
    return Cell(statistics.fmean(known), std, values=tuple(values))


def _place(row: Row, columns: Sequence[Column], per_class: bool) -> tuple[Any, ...]:
    """Key that puts the strategies of `ORDER` first, then all others by their mean of all classes, then joint."""
    name = main_name(row.strategy)
    plain = "+" not in row.strategy
    means = {column.heading: cell.mean for column, cell in zip(columns, row.cells, strict=True)}
    overall = means.get("all", means.get("Δm"))
    overall = row.cells[-1].mean if overall is None and row.cells else overall
    known = [cell.mean for cell in row.cells if cell.mean is not None]
    overall = statistics.fmean(known) if per_class and known else overall
    position = ORDER.index(name) if plain and name in ORDER else len(ORDER)
    return (
        name == UPPER_BOUND,
        position,
        bool(row.progress),
        -1.0 if overall is None else overall,
        row.strategy,
        row.note,
    )


def told(oracle: str) -> str:
    """Say what a method knows that others do not; the words follow its name."""
    knows = {"classes": "knows from the first step how many classes will come"}
    return knows.get(oracle, f"is told the {oracle} at test time")


def _chosen(runs: Sequence[Record]) -> bool:
    """True if the weights of foreign predictions were chosen by the test images, as their author declares."""
    return any(run.foreign is not None and run.foreign.declared.checkpoint == "test" for run in runs)


def _foreign(groups: Sequence[Configuration]) -> list[str]:
    """Footnotes about predictions of other codes: what their authors declare."""
    result = []
    for runs in groups:
        if (foreign := runs.runs[0].foreign) is not None:
            name = clean(runs.strategy)
            resized = sum(run.foreign.resized for run in runs.runs if run.foreign is not None)
            result.append(f"{FOREIGN} {name} is foreign, self-declared: {clean(foreign.words)}")
            result += [f"{name}: {resized} label maps were resized"] if resized else []
            result += [f"{name} chose its weights by the test images and is not ranked"] if _chosen(runs.runs) else []
    return result


def _remarks(scored: Scored, groups: Sequence[Configuration], view: View) -> list[str]:
    """Footnotes about columns, rows that are not ranked, and runs that are left out."""
    records = [record for runs in groups for record in runs.runs]
    result = counting(scored.layout, records, view)
    if scored.held_out:
        result.append(
            "scored on held-out training images: not ranked, and not to be compared with scores on test images"
        )
    if not records[0].tasks:  # of a sequence every method is told the task
        oracles = sorted({clean(record.oracle) for record in records if record.oracle is not None})
        if any(main_name(record.strategy) == UPPER_BOUND for record in records):
            result.append("joint learns all classes at once and is not ranked")
        result += [f"† {told(oracle)} and is not ranked" for oracle in oracles]
        said = [(r, note) for r in records for step in r.steps[-1:] for note in step.notes.values() if "leak" in note]
        result += dict.fromkeys(f"{clean(record.strategy)}: {clean(str(note['leak']))}" for record, note in said)
        if not (view.per_step or view.per_class) and any(step.shared for record in records for step in record.steps):
            result.append("time of a first step that was loaded is that of the run that trained it")
    copies = sum(len(runs.copies) for runs in groups)
    result += _foreign(groups)
    return [*result, *([f"{copies} further runs of the same set-up and seed left out"] if copies else [])]
