"""Scores on the test stream: one evaluation of a class-incremental stream, one a task of a sequence."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from densecl.data.class_index import class_index
from densecl.metrics.iou import Absent, class_metrics
from densecl.models.network import Output
from densecl.records.record import Evaluation, StepRecord, plain
from densecl.settings.recipe import EvaluationSettings
from densecl.streams.samples import LoadedSample, TestSamples
from densecl.streams.scenario import Scenario
from densecl.streams.stream import Stream
from densecl.tasks import Metrics, Prepared, Task
from densecl.tasks.segmentation import SegmentationMetrics
from densecl.training import distributed, features
from densecl.training.batch import normalise
from densecl.training.loop import Loop
from densecl.training.precision import widened

Group = tuple[Tensor, Tensor]
EVALUATION = EvaluationSettings()


def evaluate(
    loop: Loop,
    step: int,
    batch: int,
    workers: int = 0,
    before: Sequence[StepRecord] = (),
    settings: EvaluationSettings = EVALUATION,
) -> list[Evaluation]:
    """Evaluate a loop that has learnt a step; afterwards the network is that of the step again.

    Forgetting is measured against the records of the steps `before` it; without them it is unknown.
    """
    evaluations = []
    for heads in loop.stream.evaluations(step):
        counts = [count(loop, head, batch, workers, step if settings.images == "seen" else None) for head in heads]
        evaluations.append(score(loop.stream, heads, counts, step, before, settings.absent))
    loop.strategy.select_task(step)
    return evaluations


def by_size(samples: list[LoadedSample]) -> list[Group]:
    """(image, target) batches of equal size: whole images come in many sizes and must not be padded."""
    groups: dict[tuple[int, ...], tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for sample in samples:
        images, targets = groups[tuple(sample.image.shape)]
        images.append(sample.image)
        targets.append(sample.target)
    return [(torch.stack(images), torch.stack(targets)) for images, targets in groups.values()]


def see(loop: Loop, task: Task, images: Tensor, masks: Tensor) -> tuple[Output, Prepared]:
    """The network's output on uint8 images (B, 3, H, W) under the run's precision, widened, and the task's batch."""
    prepared = task.prepare(images.to(loop.device), masks.to(loop.device))
    image = normalise(prepared.image, *loop.normalisation)
    loop.network.eval()
    maps = features.kept(loop, task, images, image)
    with torch.no_grad(), loop.precision.autocast(), features.given(loop.network, maps):
        return widened(loop.network(image)), prepared


def scored_positions(scenario: Scenario, step: int, settings: EvaluationSettings) -> Sequence[int]:
    """Positions of the test samples of a stream with one head that are scored after a step."""
    samples = scenario.tests[0]
    return range(len(samples)) if settings.images == "all" else showing(samples, scenario.stream, step)


@torch.no_grad()
def count(loop: Loop, head: int, batch: int, workers: int = 0, seen_by: int | None = None) -> Metrics:
    """Count a head's scores on its test samples; with `seen_by` on those that show a class learnt by that step.

    Several processes count each image once, in one of them, and all get the sum.
    """
    strategy, task, labels = loop.strategy, loop.stream.tasks[head], loop.stream.labels_of(head)
    samples, metrics = loop.scenario.tests_of(head), task.metrics()
    strategy.select_task(head)
    chosen = range(len(samples)) if seen_by is None else showing(samples, loop.stream, seen_by)
    own = Subset(samples, chosen[distributed.rank() :: distributed.world()])
    for groups in DataLoader(own, batch_size=batch, collate_fn=by_size, num_workers=workers):
        for images, masks in groups:
            output, prepared = see(loop, task, images, masks)
            outputs = strategy.predict(output) if labels else output.logits.float()
            metrics.update(outputs, images.to(loop.device), prepared.target)
    metrics.sums = distributed.total(metrics.sums)
    return metrics


def showing(samples: TestSamples, stream: Stream, step: int) -> list[int]:
    """Positions of the test samples that show a class learnt by a step; all of them where a task has its own."""
    if stream.by_task:
        return list(range(len(samples)))
    learnt = [label for group in stream.learnt(step) for label in group]
    ids = np.isin(samples.table.numpy(), learnt)
    return np.flatnonzero(class_index(samples.reader)[samples.indices][:, ids].any(1)).tolist()


def confusion_of(stream: Stream, heads: Sequence[int], counts: Sequence[Metrics]) -> np.ndarray:
    """Add up the counts of heads, each over labels of its own, in one matrix over all labels of the stream."""
    n = len(stream.class_names)
    whole = np.zeros((n, n), dtype=np.int64)
    for head, metrics in zip(heads, counts, strict=True):
        whole[np.ix_(stream.labels_of(head), stream.labels_of(head))] += metrics.sums.numpy()
    return whole


def score(
    stream: Stream,
    heads: Sequence[int],
    counts: Sequence[Metrics],
    step: int,
    before: Sequence[StepRecord] = (),
    absent: Absent = "zero",
) -> Evaluation:
    """One evaluation for the record: of the heads that answered (see `Stream.evaluations`), with the counts of each."""
    if stream.kind == "classes":
        matrix = confusion_of(stream, heads, counts)
        unknown = [None] * len(matrix)
        known = [(done.evaluations[0].metrics.get("iou") if done.evaluations else None) or unknown for done in before]
        facts = {"joint": stream.joint, "has_background": stream.has_background, "labels": stream.labels}
        return Evaluation(
            task=stream.tasks[heads[-1]].name,
            metrics=class_metrics(matrix, stream.groups, step, known, absent=absent, **facts),
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
        confusion=metrics.sums.tolist() if isinstance(metrics, SegmentationMetrics) else None,
    )
