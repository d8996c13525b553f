"""Scores on the test stream: one evaluation of a class-incremental stream, one a task of a sequence."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from densecl.metrics.iou import fold_unseen, forgetting, iou_from_confusion, step_metrics, unseen_under
from densecl.records.record import Evaluation, StepRecord, plain
from densecl.streams.samples import LoadedSample, TestSamples
from densecl.streams.stream import Stream
from densecl.tasks import Metrics
from densecl.training import distributed
from densecl.training.batch import normalise
from densecl.training.loop import Loop

Group = tuple[Tensor, Tensor]


def evaluate(
    loop: Loop, step: int, batch: int, workers: int = 0, before: Sequence[StepRecord] = ()
) -> list[Evaluation]:
    """The evaluations after a step; afterwards the network is that of the step again.

    Args:
        loop: whose network has learnt the step.
        step: number of the step.
        batch: images at a time.
        workers: processes that load them.
        before: records of the steps before it, to measure forgetting against; where there are none, it is unknown.
    """
    evaluations = []
    for heads in loop.stream.evaluations(step):
        counts = [count(loop, head, batch, workers) for head in heads]
        evaluations.append(score(loop.stream, heads, counts, step, before))
    loop.strategy.select_task(step)
    return evaluations


def by_size(samples: list[LoadedSample]) -> list[Group]:
    """(image, target) batches of equal size: whole images come in many sizes and must not be padded."""
    groups: dict[tuple[int, ...], list[LoadedSample]] = defaultdict(list)
    for sample in samples:
        groups[tuple(sample.target.shape)].append(sample)
    return [
        (torch.stack([s.image for s in group]), torch.stack([s.target for s in group])) for group in groups.values()
    ]


@torch.no_grad()
def count(loop: Loop, head: int, batch: int, workers: int = 0, samples: TestSamples | None = None) -> Metrics:
    """The gathered scores of a head on its test samples, or on others.

    Several processes count each image once, in one of them, and all get the sum.

    Raises:
        UnknownNameError: the head's task was never learnt.
    """
    strategy, task, labels = loop.strategy, loop.stream.tasks[head], loop.stream.labels_of(head)
    samples = loop.scenario.tests_of(head) if samples is None else samples
    strategy.select_task(head)
    network, metrics = loop.network.eval(), task.metrics()
    own = Subset(samples, range(distributed.rank(), len(samples), distributed.world()))
    for groups in DataLoader(own, batch_size=batch, collate_fn=by_size, num_workers=workers):
        for image, mask in groups:
            image = image.to(loop.device)
            prepared = task.prepare(image, mask.to(loop.device))
            with loop.precision.autocast():
                output = network(normalise(prepared.image, *loop.normalisation))
            found = strategy.predict(output) if labels else output.logits.float()
            metrics.update(found, image, prepared.target)
    metrics.sums = distributed.total(metrics.sums)
    return metrics


def confusion(loop: Loop, step: int, batch: int, workers: int = 0) -> np.ndarray:
    """(n, n) counts of a class-incremental stream after a step: true label by predicted label, over all its labels."""
    [heads] = loop.stream.evaluations(step)
    return confusion_of(loop.stream, heads, [count(loop, head, batch, workers) for head in heads])


def confusion_of(stream: Stream, heads: Sequence[int], counts: Sequence[Metrics]) -> np.ndarray:
    """The counts of several heads, each over labels of its own, as one matrix over all labels of the stream."""
    n = len(stream.class_names)
    whole = np.zeros((n, n), dtype=np.int64)
    for head, metrics in zip(heads, counts, strict=True):
        whole[np.ix_(stream.labels_of(head), stream.labels_of(head))] += metrics.sums.numpy()
    return whole


def score(
    stream: Stream, heads: Sequence[int], counts: Sequence[Metrics], step: int, before: Sequence[StepRecord] = ()
) -> Evaluation:
    """One evaluation as records keep it.

    Args:
        stream: the steps.
        heads: that answered, see `Stream.evaluations`.
        counts: of each head.
        step: just trained.
        before: see `evaluate`.
    """
    if stream.kind == "classes":
        matrix = confusion_of(stream, heads, counts)
        return Evaluation(
            task=stream.tasks[heads[-1]].name,
            metrics=class_metrics(matrix, stream, step, before),
            confusion=matrix.tolist(),
        )
    [head], [metrics] = heads, counts
    task, now = stream.tasks[head], metrics.compute()
    lost = None
    if head < min(step, len(before)) and head < len(before[head].evaluations):
        lost = task.forgetting(before[head].evaluations[head].metrics, now)
    return Evaluation(
        task=task.name,
        metrics=plain({**now, "forgetting": None if lost is None or math.isnan(lost) else lost}),
        confusion=metrics.sums.tolist() if task.kind == "segmentation" else None,
    )


def class_metrics(matrix: np.ndarray, stream: Stream, step: int, before: Sequence[StepRecord]) -> dict[str, Any]:
    """Scores of a class-incremental stream by name, from its confusion matrix over all labels."""
    groups, learnt = stream.groups, stream.learnt(step)
    unseen = unseen_under(stream.labels)
    seen = sum(map(len, learnt))
    iou = iou_from_confusion(fold_unseen(matrix, seen, unseen))
    when_learnt = {
        label: value
        for k, group in enumerate(groups[:step])
        for label in group
        if k < len(before) and (value := before[k].evaluations[0].metrics["iou"][label]) is not None
    }
    previous = [label for group in groups[:step] for label in group]
    return {
        "miou": step_metrics(matrix, groups, len(learnt) - 1, has_background=stream.has_background, unseen=unseen),
        "iou": [None if label > seen or np.isnan(value) else float(value) for label, value in enumerate(iou)],
        "forgetting": forgetting(when_learnt, iou, previous) if previous else None,
    }
