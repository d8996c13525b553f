"""Records -> tables: a row a set-up, mean and standard deviation over seeds, columns by range of classes.

All means are taken anew from the IoU of each label, so records of any age compare alike.
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from densecl.errors import SpecError
from densecl.reporting.notes import Setup, notes
from densecl.reporting.record import Evaluation, Record, StepRecord, identity
from densecl.spec import parse

ORDER = ("finetune", "lwf", "ilt", "mib")  # then all others by their mean, then joint
UPPER_BOUND = "joint"


class Column(NamedTuple):
    """A measured column: `share` is a fraction of 1, `time` is in seconds, `number` has its own unit."""

    heading: str
    kind: Literal["share", "time", "number"]
    better: Literal["higher", "lower", ""] = ""


class Cell(NamedTuple):
    """Mean and standard deviation (n - 1) over seeds; `std` is None for one seed, `mean` where nothing was measured."""

    mean: float | None
    std: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """Runs that differ by their seed alone."""

    strategy: str
    note: str  # settings that differ from those of most rows
    backbone: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    progress: str = ""  # of a run that has not finished: "step 2 of 6"
    oracle: str | None = None  # what the strategy is told at test time

    @property
    def ranked(self) -> bool:
        """Whether the row takes part in the search for the best."""
        return not self.progress and self.oracle is None and main_name(self.strategy) != UPPER_BOUND


@dataclass(frozen=True)
class Table:
    """All rows of one benchmark."""

    benchmark: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The steps of a benchmark's stream and what lies in each range. Labels, in order of arrival."""

    steps: tuple[tuple[int, ...], ...]
    has_background: bool

    @property
    def base(self) -> tuple[int, ...]:
        """Classes of step 0."""
        return self.steps[0] if self.steps else ()

    @property
    def added(self) -> tuple[int, ...]:
        """Classes of all later steps."""
        return tuple(label for step in self.steps[1:] for label in step)

    @property
    def everything(self) -> tuple[int, ...]:
        """All labels that count: the classes, and background where there is one."""
        return (0,) * self.has_background + self.base + self.added


def rows(records: Sequence[Record], per_step: bool = False) -> list[Table]:
    """One table a benchmark, in order of name; with `per_step`, columns are the mIoU of all after each step."""
    groups: dict[tuple[str, Layout], list[Record]] = {}
    for record in records:
        groups.setdefault((record.benchmark, _layout(record, records)), []).append(record)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[0][1].steps))
    return [_table(benchmark, layout, members, per_step) for (benchmark, layout), members in ordered]


def main_name(strategy: str) -> str:
    """The strategy's name without arguments and plugins: `mib` of `mib(distillation=5)+replay`."""
    try:
        return parse(strategy)[0].name
    except SpecError:
        return strategy


def ranges(labels: Iterable[int]) -> str:
    """`1-15` or `1-3, 7`."""
    runs: list[list[int]] = []
    for label in sorted(labels):
        if runs and label == runs[-1][1] + 1:
            runs[-1][1] = label
        else:
            runs.append([label, label])
    return ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in runs)


def _layout(record: Record, others: Sequence[Record]) -> Layout:
    """The stream as the record knows it; a run of one step (`joint`) or an unfinished one may have to ask others."""
    if record.planned_steps:
        return _as_layout(record.planned_steps, record)
    own = _as_layout([step.new_classes for step in record.steps], record)
    if record.status == "finished" and len(record.steps) > 1:
        return own
    neighbours = [
        other
        for other in others
        if (other.benchmark, other.has_background) == (record.benchmark, record.has_background)
    ]
    known = [_as_layout(other.planned_steps, other) for other in neighbours if other.planned_steps]
    known += [
        _as_layout([s.new_classes for s in o.steps], o)
        for o in neighbours
        if o.status == "finished" and len(o.steps) > 1
    ]
    return Counter(known).most_common(1)[0][0] if known else own


def _as_layout(steps: Sequence[Sequence[int]], record: Record) -> Layout:
    return Layout(tuple(tuple(label for label in step if label != 0) for step in steps), record.has_background)


def _table(benchmark: str, layout: Layout, records: Sequence[Record], per_step: bool) -> Table:
    setups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        settings = json.dumps(identity(record), sort_keys=True)
        alone = "" if record.status == "finished" else f"{record.seed} {record.hash}"
        setups.setdefault((record.strategy, record.backbone, settings, alone), []).append(record)
    groups = [_one_a_seed(group) for group in setups.values()]
    columns = _step_columns(layout, records) if per_step else _columns(layout, records)
    texts = notes([Setup(group[0].strategy, group[0].backbone, identity(group[0])) for group in groups])
    lines = [_row(group, note, columns, layout, per_step) for group, note in zip(groups, texts, strict=True)]
    lines.sort(key=lambda row: _place(row, columns))
    kept = [index for index in range(len(columns)) if any(row.cells[index].mean is not None for row in lines)]
    best = [_best(columns[index], [row.cells[index].mean for row in lines if row.ranked]) for index in kept]
    marked = tuple(_mark(row, kept, best, columns) for row in lines)
    left_out = len(records) - sum(len(group) for group in groups)
    return Table(
        clean(benchmark), tuple(columns[i] for i in kept), marked, _remarks(layout, records, left_out, per_step)
    )


def _one_a_seed(records: Sequence[Record]) -> list[Record]:
    """One record a seed, so that a copied folder does not count as a further seed; the one with more steps stays."""
    chosen: dict[int, Record] = {}
    for record in records:
        if record.seed not in chosen or len(record.steps) > len(chosen[record.seed].steps):
            chosen[record.seed] = record
    return [chosen[seed] for seed in sorted(chosen)]


def _row(group: Sequence[Record], note: str, columns: Sequence[Column], layout: Layout, per_step: bool) -> Row:
    measured = [_after_each_step(r, layout, len(columns)) if per_step else _measure(r, layout) for r in group]
    first = group[0]
    return Row(
        strategy=clean(first.strategy),
        note=clean(note),
        backbone=clean(first.backbone),
        seeds=tuple(record.seed for record in group),
        cells=tuple(_cell([values.get(column.heading) for values in measured]) for column in columns),
        progress=_progress(first, layout),
        oracle=None if first.oracle is None else clean(first.oracle),
    )


def _progress(record: Record, layout: Layout) -> str:
    if record.status == "finished":
        return ""
    done, planned = len(record.steps), len(layout.steps)
    if main_name(record.strategy) == UPPER_BOUND or planned < max(done, 1):
        return f"{done} steps"
    return f"step {done} of {planned}"


def _columns(layout: Layout, records: Sequence[Record]) -> list[Column]:
    columns = [Column(ranges(part), "share", "higher") for part in (layout.base, layout.added) if part]
    columns.append(Column("all", "share", "higher"))
    if layout.has_background:
        columns.append(Column("all fg", "share", "higher"))
    columns.append(Column("forgetting", "share", "lower"))
    for record in records:
        columns += [column for column, _ in _other_measures(record) if column not in columns]
    return [*columns, Column("time", "time")]


def _step_columns(layout: Layout, records: Sequence[Record]) -> list[Column]:
    count = max([len(layout.steps), *(len(record.steps) for record in records)])
    return [Column(f"step {step}", "share", "higher") for step in range(count)]


def _measure(record: Record, layout: Layout) -> dict[str, float | None]:
    """Values by heading, from the last step's evaluation."""
    values: dict[str, float | None] = {"time": sum(step.seconds for step in record.steps) if record.steps else None}
    values |= {column.heading: value for column, value in _other_measures(record)}
    evaluation = _segmentation(record.steps[-1]) if record.steps else None
    if evaluation is None:
        return values
    seen = _seen(record.steps)
    for part in (layout.base, layout.added):
        values[ranges(part)] = _mean(evaluation, part, seen)
    values["all"] = _mean(evaluation, layout.everything, seen)
    values["all fg"] = _mean(evaluation, layout.base + layout.added, seen)
    values["forgetting"] = evaluation.metrics.get("forgetting")
    return values


def _after_each_step(record: Record, layout: Layout, count: int) -> dict[str, float | None]:
    """Score of all classes seen so far by heading; a run that takes the stream as one step stands at its end."""
    values: dict[str, float | None] = {}
    one = main_name(record.strategy) == UPPER_BOUND
    for index, step in enumerate(record.steps):
        evaluation = _segmentation(step)
        if evaluation is not None:
            mean = _mean(evaluation, layout.everything, _seen(record.steps[: index + 1]))
            values[f"step {count - 1 if one else index}"] = mean
    return values


def _segmentation(step: StepRecord) -> Evaluation | None:
    """The step's evaluation by IoU, if there is exactly one."""
    found = [evaluation for evaluation in step.evaluations if "iou" in evaluation.metrics]
    return found[0] if len(found) == 1 else None


def _other_measures(record: Record) -> list[tuple[Column, float]]:
    """What other tasks of the last step measured; not ranked, since a record does not say which way is better."""
    if not record.steps:
        return []
    result: list[tuple[Column, float]] = []
    for evaluation in record.steps[-1].evaluations:
        if evaluation is _segmentation(record.steps[-1]):
            continue
        task = clean(evaluation.task)
        overall = evaluation.metrics.get("miou", {}).get("all")
        if overall is not None:
            result.append((Column(f"{task} mIoU", "share"), overall))
        scalars = ((key, value) for key, value in evaluation.metrics.items() if type(value) in (int, float))
        result += [(Column(f"{task} {clean(key)}", "number"), value) for key, value in scalars]
    return result


def _seen(steps: Sequence[StepRecord]) -> set[int]:
    return {0}.union(*(step.new_classes for step in steps))


def _mean(evaluation: Evaluation, labels: Iterable[int], seen: set[int]) -> float | None:
    """Mean IoU of those `labels` that were learnt; labels that are neither present nor predicted do not count."""
    iou = evaluation.metrics["iou"]
    values = [iou[label] for label in labels if label in seen and 0 <= label < len(iou) and iou[label] is not None]
    return statistics.fmean(values) if values else None


def _cell(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    if not known:
        return Cell(None)
    return Cell(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def _place(row: Row, columns: Sequence[Column]) -> tuple[Any, ...]:
    name = main_name(row.strategy)
    plain = "+" not in row.strategy
    overall = next((c.mean for column, c in zip(columns, row.cells, strict=True) if column.heading == "all"), None)
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


def _mark(row: Row, kept: Sequence[int], best: Sequence[float | None], columns: Sequence[Column]) -> Row:
    cells = []
    for index, winner in zip(kept, best, strict=True):
        cell = row.cells[index]
        wins = (
            row.ranked and winner is not None and cell.mean is not None and rounded(columns[index], cell.mean) == winner
        )
        cells.append(cell._replace(best=wins))
    return replace(row, cells=tuple(cells))


def _remarks(layout: Layout, records: Sequence[Record], left_out: int, per_step: bool) -> tuple[str, ...]:
    classes = layout.base + layout.added
    counted = (
        f"all: {ranges(layout.everything)}{', 0 is background' if layout.has_background else ''}" if classes else ""
    )
    if per_step:
        remarks = ["mIoU in % of all classes seen so far" + (", background counted" if layout.has_background else "")]
    else:
        fg = f"all fg: {ranges(classes)}" if classes and layout.has_background else ""
        remarks = ["; ".join(part for part in ("mIoU in %", counted, fg) if part)]
    if any(main_name(record.strategy) == UPPER_BOUND for record in records):
        remarks.append("joint learns all classes at once and is not ranked")
    oracles = sorted({clean(record.oracle) for record in records if record.oracle is not None})
    remarks += [f"† is told the {oracle} at test time and is not ranked" for oracle in oracles]
    if not per_step and any(step.shared for record in records for step in record.steps):
        remarks.append("time leaves out first steps that another run trained")
    if left_out:
        remarks.append(f"{left_out} further runs of the same set-up and seed left out")
    return tuple(remarks)


def clean(text: str) -> str:
    """`text` on one line without control characters: names come from files that anyone may have written."""
    return "".join(character if character.isprintable() else " " for character in text)
