"""Records -> values by column. Means are taken anew from the IoU of each label, so records of any age compare alike."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from densecl.metrics.forgetting import forgetting
from densecl.metrics.grouping import (
    Grouping,
    fold_unseen,
    grouping,
    harmonic_mean,
    iou_from_confusion,
    unseen_under,
)
from densecl.records.layout import UPPER_BOUND, Layout, clean, main_name, ranges
from densecl.records.record import Evaluation, Record, StepRecord
from densecl.tables import sequences as sequence
from densecl.tables.columns import Column, Values


@dataclass(frozen=True)
class View:
    """What a table shows of each run.

    Attributes:
        group: name of a grouping; None: base without and all with background, and all without it beside.
        labels: label preset whose evaluation half counts unseen classes; None: the run's own.
        per_step: the mean of all seen classes after each step, instead of ranges after the last; of a sequence of
            tasks, each task after each step.
        paper: of a sequence of tasks, the layout of Matsumoto and Yanai's tables.

    Raises:
        UnknownNameError: no such grouping or preset.
    """

    group: str | None = None
    labels: str | None = None
    per_step: bool = False
    paper: bool = False

    def __post_init__(self) -> None:
        if self.group is not None:
            grouping(self.group)
        if self.labels is not None:
            unseen_under(self.labels)

    @property
    def grouping(self) -> Grouping | None:
        """The grouping, when one was asked for."""
        return None if self.group is None else grouping(self.group)

    def everything(self, layout: Layout) -> tuple[int, ...]:
        """All labels that count in `all`."""
        return layout.with_background(layout.classes, self.grouping is None or self.grouping.overall)


class Score(NamedTuple):
    """One step's IoU by label (None where a label is neither present nor predicted), and what is forgotten."""

    iou: Sequence[float | None]
    seen: frozenset[int]
    forgetting: float | None

    def mean(self, labels: Iterable[int]) -> float | None:
        """Mean IoU of those `labels` that were learnt; labels without IoU do not count."""
        values = [self.iou[label] for label in labels if label in self.seen and 0 <= label < len(self.iou)]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


def columns(layout: Layout, records: Sequence[Record], view: View) -> list[Column]:
    """The columns of a benchmark's table."""
    if records and records[0].tasks:
        return sequence.columns(records, view.per_step, view.paper)
    if view.per_step:
        return _step_columns(layout, records, view)
    group = view.grouping
    base = layout.with_background(layout.base, group is not None and group.base) if layout.base else ()
    result = [Column(ranges(base), "share", "higher", base, "base")] if base else []
    if layout.added:
        result.append(Column(ranges(layout.added), "share", "higher", layout.added, "added"))
    result.append(Column("all", "share", "higher", view.everything(layout), "all"))
    if group is None and layout.has_background:
        result.append(Column("all fg", "share", "higher", layout.classes, "all"))
    if group is not None and group.extra:
        result.append(Column(group.extra, "share", "higher"))
    result.append(Column("forgetting", "share", "lower"))
    for record in records:
        result += [column for column, _ in _other_measures(record) if column not in result]
    return [*result, Column("time", "time")]


def measure(record: Record, layout: Layout, of: Sequence[Column], view: View) -> Values:
    """Values by heading, from the last step's evaluation or, per step, from each."""
    if record.tasks:
        return sequence.measure(record, view.paper)
    scores = [_score(record, index, view.labels) for index in range(len(record.steps))]
    if view.per_step:
        return _after_each_step(record, layout, scores, of, view)
    values: Values = {"time": sum(step.seconds for step in record.steps) if record.steps else None}
    values |= {column.heading: value for column, value in _other_measures(record)}
    last = scores[-1] if scores else None
    if last is None:
        return values
    for column in of:
        if column.labels:
            values[column.heading] = last.mean(column.labels)
    by_part = {column.part: values[column.heading] for column in of if column.labels}
    values["harmonic"] = harmonic_mean(by_part.get("base"), by_part.get("added"))
    values["average"] = _average(record, layout, scores, view)
    values["forgetting"] = last.forgetting
    return values


def lacks_confusion(record: Record) -> bool:
    """Whether a step was scored by IoU and kept no confusion matrix, so that no other preset can be computed."""
    found = [segmentation(step) for step in record.steps]
    return any(evaluation is not None and evaluation.confusion is None for evaluation in found)


def segmentation(step: StepRecord) -> Evaluation | None:
    """The step's evaluation by IoU, if there is exactly one."""
    found = [evaluation for evaluation in step.evaluations if "iou" in evaluation.metrics]
    return found[0] if len(found) == 1 else None


def _score(record: Record, index: int, labels: str | None) -> Score | None:
    """One step's score: as recorded or, under a label preset, from its confusion matrix."""
    evaluation = segmentation(record.steps[index])
    if evaluation is None:
        return None
    seen = _seen(record.steps[: index + 1])
    if labels is None:
        return Score(evaluation.metrics["iou"], seen, evaluation.metrics.get("forgetting"))
    now = _folded(record, index, labels)
    if now is None:
        return None
    learnt: dict[int, float] = {}
    for earlier, step in enumerate(record.steps[:index]):
        then = _folded(record, earlier, labels)
        if then is not None:
            learnt |= {label: float(then[label]) for label in step.new_classes if 0 <= label < len(then)}
    lost = forgetting(learnt, now, sorted(learnt)) if learnt else None
    iou = [None if np.isnan(value) or label > max(seen) else float(value) for label, value in enumerate(now)]
    return Score(iou, seen, lost)


def _folded(record: Record, index: int, labels: str) -> np.ndarray | None:
    """(n,) IoU after a step from its confusion matrix, unseen classes counted as the preset says."""
    evaluation = segmentation(record.steps[index])
    if evaluation is None or evaluation.confusion is None:
        return None
    matrix = np.asarray(evaluation.confusion, dtype=np.int64)
    return iou_from_confusion(fold_unseen(matrix, max(_seen(record.steps[: index + 1])), unseen_under(labels)))


def _seen(steps: Sequence[StepRecord]) -> frozenset[int]:
    return frozenset({0}.union(*(step.new_classes for step in steps)))


def _average(record: Record, layout: Layout, scores: Sequence[Score | None], view: View) -> float | None:
    """Mean over the steps of the mean of all classes seen; None for a run that takes the stream as one step."""
    if main_name(record.strategy) == UPPER_BOUND:
        return None
    found = [None if score is None else score.mean(view.everything(layout)) for score in scores]
    known = [value for value in found if value is not None]
    return statistics.fmean(known) if known and len(known) == len(found) else None


def _step_columns(layout: Layout, records: Sequence[Record], view: View) -> list[Column]:
    count = max([len(layout.steps), *(len(record.steps) for record in records)])
    group = view.grouping
    further = [Column("average", "share", "higher")] if group is not None and group.extra == "average" else []
    return [Column(f"step {step}", "share", "higher") for step in range(count)] + further


def _after_each_step(
    record: Record, layout: Layout, scores: Sequence[Score | None], of: Sequence[Column], view: View
) -> Values:
    """Score of all classes seen so far by heading; a run that takes the stream as one step stands at its end."""
    last = sum(column.heading.startswith("step ") for column in of) - 1
    one = main_name(record.strategy) == UPPER_BOUND
    values: Values = {"average": _average(record, layout, scores, view)}
    for index, score in enumerate(scores):
        if score is not None:
            values[f"step {last if one else index}"] = score.mean(view.everything(layout))
    return values


def _other_measures(record: Record) -> list[tuple[Column, float]]:
    """What other tasks of the last step measured; not ranked, since a record does not say which way is better."""
    if not record.steps:
        return []
    result: list[tuple[Column, float]] = []
    for evaluation in record.steps[-1].evaluations:
        if evaluation is segmentation(record.steps[-1]):
            continue
        task = clean(evaluation.task)
        overall = evaluation.metrics.get("miou", {}).get("all")
        if overall is not None:
            result.append((Column(f"{task} mIoU", "share"), overall))
        scalars = ((key, value) for key, value in evaluation.metrics.items() if type(value) in (int, float))
        result += [(Column(f"{task} {clean(key)}", "number"), value) for key, value in scalars]
    return result
