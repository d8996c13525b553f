"""Scores of a run. Means are computed from the IoU of each label, so records of any age compare alike."""

import statistics
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from densecl.metrics.iou import Absent, fold_unseen, iou_from_confusion, unseen_under
from densecl.records.layout import UPPER_BOUND, clean, main_name
from densecl.records.record import Evaluation, Record, StepRecord, TaskRecord
from densecl.tables.columns import Column

MIB = 2**20


class Scores:
    """The values that tables read of a run; `labels` is the preset by which classes not learnt yet are scored."""

    def __init__(self, record: Record, labels: str | None = None):
        self.record = record
        self.labels = labels
        self.is_joint = main_name(record.strategy) == UPPER_BOUND

    @cached_property
    def by_step(self) -> list[dict[int, float]]:
        """IoU by label after each step, of the labels that are learnt and present or predicted."""
        absent = self.record.settings.get("evaluation", {}).get("absent", "zero")
        return [_iou(self.record.steps[: step + 1], self.labels, absent) for step in range(len(self.record.steps))]

    def mean(self, labels: Iterable[int], step: int = -1) -> float | None:
        """Mean IoU of `labels` after a step, by default the last one; labels without IoU do not count."""
        iou = self.by_step[step] if self.by_step and step < len(self.by_step) else {}
        known = [iou[label] for label in labels if label in iou]
        return statistics.fmean(known) if known else None

    def mean_at(self, labels: Iterable[int], step: int, last: int) -> float | None:
        """Mean IoU after a step of the stream; a run that takes the stream as one step stands at its `last` step."""
        if self.is_joint:
            return self.mean(labels) if step == last else None
        return self.mean(labels, step)

    def forgetting(self) -> float | None:
        """IoU of classes when they were learnt minus IoU after the last step."""
        steps = self.record.steps
        last = segmentation(steps[-1]) if steps else None
        if self.labels is None:
            return None if last is None else last.metrics.get("forgetting")
        now = self.by_step[-1] if steps else {}
        pairs = zip(steps[:-1], self.by_step, strict=False)
        learnt = {label: iou[label] for step, iou in pairs for label in step.new_classes if label in iou}
        losses = [learnt[label] - now[label] for label in sorted(learnt.keys() & now.keys()) if label != 0]
        return float(np.mean(losses)) if losses else None

    def of_task(self, task: TaskRecord, metric: str, step: int = -1) -> float | None:
        """A score of a task of a sequence after a step, by default the last one; of mIoU, the mean of all classes."""
        steps = self.record.steps
        evaluations = steps[step].evaluations if steps and step < len(steps) else []
        for own, evaluation in zip(self.record.tasks, evaluations, strict=False):
            if (own.name, own.primary) == (task.name, task.primary):
                return _whole(evaluation.metrics.get(metric))
        return None

    def of_class(self, name: str) -> float | None:
        """IoU of a class after the last step, by its name."""
        names = self.record.class_names
        return self.by_step[-1].get(names.index(name)) if self.by_step and name in names else None

    def of_task_class(self, task: TaskRecord, label: int) -> float | None:
        """IoU of a class of a task of a sequence after the last step."""
        last = self.record.steps[-1].evaluations if self.record.steps else []
        for own, evaluation in zip(self.record.tasks, last, strict=False):
            iou = evaluation.metrics.get("iou", [])
            if own.name == task.name and label < len(iou):
                return iou[label]
        return None

    @cached_property
    def of_others(self) -> dict[Column, float]:
        """Scores of other tasks after the last step. Not ranked: the record does not say which way is better."""
        scores: dict[Column, float] = {}
        for step in self.record.steps[-1:]:
            others = [evaluation for evaluation in step.evaluations if evaluation is not segmentation(step)]
            for evaluation, (metric, value) in ((other, item) for other in others for item in other.metrics.items()):
                kind, name = ("share", "mIoU") if metric == "miou" else ("number", clean(metric))
                if isinstance(score := _whole(value), int | float):
                    scores[Column(f"{clean(evaluation.task)} {name}", kind)] = score
        return scores

    def seconds(self) -> float | None:
        """Time of training; of foreign predictions nobody knows it."""
        if self.record.foreign is not None:
            return None
        return sum(step.seconds for step in self.record.steps) if self.record.steps else None

    @cached_property
    def sizes(self) -> list[int]:
        """Bytes by formula of all that performs the tasks, after each step; empty if one of them is not known."""
        formulas = [step.model.formula if step.model else None for step in self.record.steps]
        known = [size for size in formulas if size is not None]
        return known if len(known) == len(formulas) else []

    def size(self) -> float | None:
        """MiB by formula of all that performs the tasks."""
        return self.sizes[-1] / MIB if self.sizes else None

    def file_size(self) -> float | None:
        """MiB of a file of all that performs the tasks."""
        model = self.record.steps[-1].model if self.sizes else None
        return None if model is None else model.file / MIB

    def size_added(self, step: int | None = None) -> float | None:
        """MiB that a step adds to the size, rounded as papers print it; without a step, the sum of all."""
        added = [round((after - before) / MIB, 1) for before, after in zip([0, *self.sizes], self.sizes, strict=False)]
        if step is None:
            return round(sum(added), 1) if added else None
        return added[step] if step < len(added) else None


def segmentation(step: StepRecord) -> Evaluation | None:
    """The step's evaluation by IoU, if there is exactly one."""
    evaluations = [evaluation for evaluation in step.evaluations if "iou" in evaluation.metrics]
    return evaluations[0] if len(evaluations) == 1 else None


def _whole(value: Any) -> Any:
    """A score; of a mIoU by ranges of classes, that of all."""
    return value.get("all") if isinstance(value, dict) else value


def _iou(steps: Sequence[StepRecord], labels: str | None, absent: Absent) -> dict[int, float]:
    """IoU by label after the last of `steps`: as recorded or, under a label preset, from its confusion matrix."""
    evaluation = segmentation(steps[-1])
    if evaluation is None or (labels is not None and evaluation.confusion is None):
        return {}
    seen = {0}.union(*(step.new_classes for step in steps))
    iou = evaluation.metrics["iou"]
    if labels is not None:
        matrix = np.asarray(evaluation.confusion, dtype=np.int64)
        iou = iou_from_confusion(fold_unseen(matrix, max(seen), unseen_under(labels)), absent).tolist()
    return {label: value for label, value in enumerate(iou) if label in seen and value is not None and value == value}
