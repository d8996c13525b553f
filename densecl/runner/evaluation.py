"""Scoring a network on the test stream: one confusion matrix with every true class as a row."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from densecl.metrics import ConfusionMatrix
from densecl.metrics.iou import fold_unseen, forgetting, iou_from_confusion, step_metrics, unseen_under
from densecl.records.record import Evaluation, StepRecord, plain
from densecl.strategies.base import Strategy
from densecl.streams.samples import LoadedSample, TestSamples
from densecl.streams.scenario import Scenario
from densecl.training import distributed
from densecl.training.batch import normalise

Group = tuple[Tensor, Tensor]


def by_size(samples: list[LoadedSample]) -> list[Group]:
    """(image, target) batches of equal size: whole images come in many sizes and must not be padded."""
    groups: dict[tuple[int, ...], list[LoadedSample]] = defaultdict(list)
    for sample in samples:
        groups[tuple(sample.target.shape)].append(sample)
    return [
        (torch.stack([s.image for s in group]), torch.stack([s.target for s in group])) for group in groups.values()
    ]


@torch.no_grad()
def confusion(strategy: Strategy, samples: TestSamples, n_labels: int, batch: int, workers: int = 0) -> np.ndarray:
    """(n_labels, n_labels) counts of pixels, true label by predicted label, over all samples.

    Several processes count each image once, in one of them, and all get the sum.
    """
    network = strategy.network.eval()
    matrix = ConfusionMatrix(n_labels)
    own = Subset(samples, range(distributed.rank(), len(samples), distributed.world()))
    loader = DataLoader(own, batch_size=batch, collate_fn=by_size, num_workers=workers)
    for groups in loader:
        for image, target in groups:
            image = normalise(image.to(strategy.device), *strategy.normalisation)
            with strategy.precision.autocast():
                output = network(image)
            matrix.update(strategy.predict(output), target.to(strategy.device))
    return distributed.total(matrix.matrix).numpy()


def confusion_of_all(strategy: Strategy, step: int, batch: int, workers: int = 0) -> np.ndarray:
    """The confusion matrix of a class-incremental stream after a step, over all its labels.

    A method that is told the step answers for each one learnt on that step's own test samples (`streams.told`);
    afterwards the network is that of `step` again.
    """
    scenario = strategy.scenario
    n_labels = len(scenario.class_names)
    if not scenario.by_task:
        return confusion(strategy, scenario.test, n_labels, batch, workers)
    whole = np.zeros((n_labels, n_labels), dtype=np.int64)
    for index, group in enumerate(scenario.groups[: step + 1]):
        strategy.select_task(index)
        labels = [0, *group]
        whole[np.ix_(labels, labels)] += confusion(strategy, scenario.tests[index], len(labels), batch, workers)
    strategy.select_task(step)
    return whole


def score(matrix: np.ndarray, scenario: Scenario, step: int, learnt: list[np.ndarray]) -> Evaluation:
    """The record's evaluation of one step.

    Args:
        matrix: confusion matrix over all labels.
        scenario: the stream.
        step: just trained.
        learnt: the IoU by label after each earlier step, to measure forgetting against.
    """
    groups = scenario.groups
    last = len(groups) - 1 if len(scenario.settings.steps) == 1 else step  # joint has learnt all groups in one
    unseen = unseen_under(scenario.settings.labels)
    seen = sum(len(group) for group in groups[: last + 1])
    iou = iou_from_confusion(fold_unseen(matrix, seen, unseen))
    miou = step_metrics(matrix, groups, last, has_background=scenario.has_background, unseen=unseen)
    previous = [label for group in groups[:step] for label in group]
    when_learnt = {
        label: float(learnt[k][label]) for k, group in enumerate(groups[:step]) for label in group if k < len(learnt)
    }
    metrics: dict[str, Any] = {
        "miou": miou,
        "iou": [None if label > seen or np.isnan(value) else float(value) for label, value in enumerate(iou)],
        "forgetting": forgetting(when_learnt, iou, previous) if previous else None,
    }
    task = scenario.tasks[min(step, len(scenario.tasks) - 1)]
    return Evaluation(task=task.name, metrics=metrics, confusion=matrix.tolist())


@torch.no_grad()
def measure(strategy: Strategy, index: int, batch: int, workers: int = 0) -> Evaluation:
    """The scores of one task of a sequence, without forgetting.

    Several processes count each image once, in one of them, and all get the whole.

    Raises:
        UnknownNameError: the task was never learnt.
    """
    scenario = strategy.scenario
    task, samples = scenario.tasks[index], scenario.tests[index]
    strategy.select_task(index)
    network = strategy.network.eval()
    metrics = task.metrics()
    own = Subset(samples, range(distributed.rank(), len(samples), distributed.world()))
    loader = DataLoader(own, batch_size=batch, collate_fn=by_size, num_workers=workers)
    for groups in loader:
        for image, mask in groups:
            image = image.to(strategy.device)
            prepared = task.prepare(image, mask.to(strategy.device))
            with strategy.precision.autocast():
                logits = network(normalise(prepared.image, *strategy.normalisation)).logits.float()
            metrics.update(logits, image, prepared.target)
    metrics.sums = distributed.total(metrics.sums)
    confused = metrics.sums.tolist() if task.kind == "segmentation" else None
    return Evaluation(task=task.name, metrics=metrics.compute(), confusion=confused)


def measure_all(
    strategy: Strategy, step: int, batch: int, workers: int, learnt: Sequence[Evaluation | None]
) -> list[Evaluation]:
    """The scores of every task learnt up to a step; afterwards the network is that of the step's task again.

    Args:
        strategy: that has learnt them.
        step: of the last one.
        batch: images at a time.
        workers: that load them.
        learnt: what each task scored when it was learnt, to measure forgetting against; None where that is unknown.
    """
    found = []
    for index, task in enumerate(strategy.scenario.tasks[: step + 1]):
        now = measure(strategy, index, batch, workers)
        before = learnt[index] if index < min(step, len(learnt)) else None
        lost = None if before is None else task.forgetting(before.metrics, now.metrics)
        metrics = {**now.metrics, "forgetting": None if lost is None or math.isnan(lost) else lost}
        found.append(now.model_copy(update={"metrics": plain(metrics)}))
    return found


def when_learnt(steps: Sequence[StepRecord]) -> list[Evaluation | None]:
    """What each task of a sequence scored after its own step."""
    return [step.evaluations[k] if k < len(step.evaluations) else None for k, step in enumerate(steps)]


def ious(steps: list[StepRecord]) -> list[np.ndarray]:
    """IoU by label after each recorded step, NaN where there is none."""
    return [np.array([np.nan if v is None else v for v in step.evaluations[0].metrics["iou"]]) for step in steps]
