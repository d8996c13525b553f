"""Scores of a run. Means are computed from the IoU of each label, so records of any age compare alike."""

import statistics
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from densecl.metrics.iou import fold_unseen, forgetting, iou_from_confusion, unseen_under
from densecl.records.layout import UPPER_BOUND, clean, main_name
from densecl.records.record import Evaluation, Record, StepRecord, TaskRecord
from densecl.tables.columns import Column

MIB = 2**20


class StepScore(NamedTuple):
    """IoU by label after a step (None where a label is neither present nor predicted), and the forgetting."""

    iou: Sequence[float | None]
    seen: frozenset[int]
    forgetting: float | None

    def mean(self, labels: Iterable[int]) -> float | None:
        """Mean IoU of those `labels` that were learnt; labels without IoU do not count."""
        values = [self.iou[label] for label in labels if label in self.seen and label < len(self.iou)]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


class Scores:
    """All that tables read of a run.

    Args:
        record: of the run.
        labels: label preset by which classes not learnt yet are scored; None: as recorded.
    """

    def __init__(self, record: Record, labels: str | None = None):
        self.record = record
        self.labels = labels

    @property
    def is_joint(self) -> bool:
        """True if the run takes the whole stream as one step."""
        return main_name(self.record.strategy) == UPPER_BOUND

    @cached_property
    def by_step(self) -> list[StepScore | None]:
        """Scores of classes after each step; None for a step without IoU."""
        return [_step_score(self.record.steps[: step + 1], self.labels) for step in range(len(self.record.steps))]

    @property
    def last(self) -> StepScore:
        """Scores of classes after the last step."""
        last = self.by_step[-1] if self.by_step else None
        return last or StepScore((), frozenset(), None)

    def means(self, labels: Iterable[int]) -> list[float | None]:
        """Mean IoU of those `labels` that were learnt, after each step."""
        labels = tuple(labels)
        return [None if score is None else score.mean(labels) for score in self.by_step]

    def of_task(self, task: TaskRecord, metric: str, step: int = -1) -> float | None:
        """A score of a task of a sequence after a step, by default the last one; of mIoU, the mean of all classes."""
        steps, tasks = self.record.steps, self.record.tasks
        index = next((i for i, own in enumerate(tasks) if (own.name, own.primary) == (task.name, task.primary)), None)
        if index is None or not -1 <= step < len(steps) or not steps or index >= len(steps[step].evaluations):
            return None
        value = steps[step].evaluations[index].metrics.get(metric)
        return value.get("all") if isinstance(value, dict) else value

    @property
    def others(self) -> dict[Column, float]:
        """Scores of other tasks after the last step. Not ranked: the record does not say which way is better."""
        result: dict[Column, float] = {}
        for step in self.record.steps[-1:]:
            for evaluation in step.evaluations:
                if evaluation is segmentation(step):
                    continue
                task = clean(evaluation.task)
                overall = evaluation.metrics.get("miou", {}).get("all")
                if overall is not None:
                    result[Column(f"{task} mIoU", "share")] = overall
                for metric, value in evaluation.metrics.items():
                    if type(value) in (int, float):
                        result[Column(f"{task} {clean(metric)}", "number")] = value
        return result

    def seconds(self) -> float | None:
        """Time of training."""
        return sum(step.seconds for step in self.record.steps) if self.record.steps else None

    @cached_property
    def sizes(self) -> list[int]:
        """Bytes by formula of all that performs the tasks, after each step; empty if one of them is not known."""
        formulas = [step.model.formula if step.model else None for step in self.record.steps]
        known = [size for size in formulas if size is not None]
        return known if len(known) == len(formulas) else []

    @property
    def growth(self) -> list[float]:
        """MiB that each step adds to the size, rounded as papers print it."""
        return [round((after - before) / MIB, 1) for before, after in zip([0, *self.sizes], self.sizes, strict=False)]

    def size(self) -> float | None:
        """MiB by formula of all that performs the tasks."""
        return self.sizes[-1] / MIB if self.sizes else None

    def file_size(self) -> float | None:
        """MiB of a file of all that performs the tasks."""
        model = self.record.steps[-1].model if self.sizes else None
        return None if model is None else model.file / MIB


def segmentation(step: StepRecord) -> Evaluation | None:
    """The step's evaluation by IoU, if there is exactly one."""
    evaluations = [evaluation for evaluation in step.evaluations if "iou" in evaluation.metrics]
    return evaluations[0] if len(evaluations) == 1 else None


def lacks_confusion(record: Record) -> bool:
    """True if a step has IoU without a confusion matrix, so that it cannot be scored under another label preset."""
    evaluations = [segmentation(step) for step in record.steps]
    return any(evaluation is not None and evaluation.confusion is None for evaluation in evaluations)


def _step_score(steps: Sequence[StepRecord], labels: str | None) -> StepScore | None:
    """Scores after the last of `steps`: as recorded or, under a label preset, from its confusion matrix."""
    evaluation = segmentation(steps[-1])
    seen = _seen(steps)
    if evaluation is None:
        return None
    if labels is None:
        return StepScore(evaluation.metrics["iou"], seen, evaluation.metrics.get("forgetting"))
    now = _iou_under(steps, labels)
    if now is None:
        return None
    when_learnt: dict[int, float] = {}
    for index, step in enumerate(steps[:-1]):
        then = _iou_under(steps[: index + 1], labels)
        if then is not None:
            when_learnt |= {label: float(then[label]) for label in step.new_classes if label < len(then)}
    lost = forgetting(when_learnt, now, sorted(when_learnt)) if when_learnt else None
    iou = [None if np.isnan(value) or label > max(seen) else float(value) for label, value in enumerate(now)]
    return StepScore(iou, seen, lost)


def _iou_under(steps: Sequence[StepRecord], labels: str) -> np.ndarray | None:
    """(n,) IoU after the last of `steps`, from its confusion matrix."""
    evaluation = segmentation(steps[-1])
    if evaluation is None or evaluation.confusion is None:
        return None
    matrix = np.asarray(evaluation.confusion, dtype=np.int64)
    return iou_from_confusion(fold_unseen(matrix, max(_seen(steps)), unseen_under(labels)))


def _seen(steps: Sequence[StepRecord]) -> frozenset[int]:
    return frozenset({0}.union(*(step.new_classes for step in steps)))
