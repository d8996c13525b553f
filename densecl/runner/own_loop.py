"""A benchmark for a training loop of one's own: its stream with transforms, loader and metric."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from densecl.errors import SettingError
from densecl.metrics.confusion import count_pairs
from densecl.metrics.iou import class_metrics
from densecl.runner.build import build_scenario
from densecl.runner.evaluation import by_size
from densecl.runner.plan import Plan, make_plan
from densecl.settings.recipe import TrainingSettings
from densecl.streams.scenario import Experience, Scenario
from densecl.streams.stream import Stream
from densecl.training.batch import Batch, normalise, unkeyed
from densecl.training.loader import EpochBatches, make_loader, step_length


@dataclass(frozen=True, eq=False)
class TrainStep:
    """A step to train: its classes, its length, and its batches."""

    experience: Experience
    scenario: Scenario
    settings: TrainingSettings
    seed: int
    workers: int

    @property
    def step(self) -> int:
        """Its number, from 0."""
        return self.experience.step

    @property
    def new_classes(self) -> tuple[int, ...]:
        """Labels that arrive at this step."""
        return self.experience.new_classes

    @property
    def seen_classes(self) -> tuple[int, ...]:
        """Labels of this and all earlier steps, background excluded."""
        return self.experience.seen_classes

    @property
    def n_outputs(self) -> int:
        """Outputs after this step, output 0 included."""
        return self.experience.n_outputs

    @property
    def n_old(self) -> int:
        """Outputs before this step, output 0 included; 0 at the first."""
        return self.n_outputs - len(self.new_classes) if self.step else 0

    @property
    def rate(self) -> float:
        """The learning rate of the benchmark's recipe at the start of the step."""
        return self.settings.rate(self.step)

    @property
    def epochs(self) -> int:
        """Passes over the images, as the benchmark's recipe says."""
        return self._length[0]

    @property
    def iterations(self) -> int:
        """Batches in all epochs."""
        return self._length[1]

    @property
    def _length(self) -> tuple[int, int]:
        s, images = self.settings, len(self.experience.images.indices)
        return step_length(images, s.batch, *s.length(self.step), drop_last=s.drop_last)

    def loader(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, those of `densecl run`: augmented and normalised; their order derives from the seed.

        Images are (B, 3, H, W) float32, targets (B, H, W) int64: 0 background, 255 void. The last epoch ends where
        `iterations` says.
        """
        s, images = self.settings, len(self.experience.images.indices)
        order = EpochBatches(images, s.batch, self.seed, self.step, rank=0, world=1, drop_last=s.drop_last)
        order.set_epoch(epoch, self.iterations - epoch * len(order))
        for batch in make_loader(self.scenario.training, order, self.workers, pin=False):
            image, target, weight = self.experience.task.prepare(batch.image, batch.target)
            image = normalise(image, *self.scenario.normalisation)
            yield batch._replace(image=image, target=target, weight=weight)


@dataclass(frozen=True, eq=False)
class TestStep:
    """The test images after a step; they are the same for all steps."""

    __test__ = False  # not a test case

    step: int
    scenario: Scenario
    batch: int
    workers: int

    def loader(self) -> Iterator[Batch]:
        """The test images in batches of one size each, normalised, with the labels of all classes, seen or not."""
        samples, task = self.scenario.tests_of(self.step), self.scenario.stream.tasks[self.step]
        groups: Iterable[Any] = DataLoader(samples, self.batch, collate_fn=by_size, num_workers=self.workers)
        for pairs in groups:
            for images, masks in pairs:
                image, target, _ = task.prepare(images, masks)
                yield unkeyed(normalise(image, *self.scenario.normalisation), target)


class Metric:
    """Scores after a step, as `densecl run` records them, from one confusion matrix."""

    def __init__(self, stream: Stream, step: int, before: Sequence[dict[str, Any]] = (), skip_absent: bool = False):
        self.stream, self.step, self.before = stream, step, before
        self.absent = "skip" if skip_absent else "zero"
        labels = len(stream.class_names)
        self.confusion = torch.zeros(labels, labels, dtype=torch.int64)  # rows are the truth

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count labels (B, H, W), or logits (B, C, H, W), against the truth (B, H, W)."""
        labels = predicted.argmax(1) if predicted.ndim == 4 else predicted
        self.confusion += count_pairs(labels, target, len(self.confusion), 255).cpu()

    def compute(self) -> dict[str, Any]:
        """`miou` by range of classes, `iou` by label, and `forgetting` against the earlier scores that were given."""
        stream = self.stream
        known = [scores["iou"] for scores in self.before]
        facts: dict[str, Any] = {"joint": False, "has_background": stream.has_background, "labels": stream.labels}
        matrix = self.confusion.numpy()
        return class_metrics(matrix, stream.groups, self.step, known, absent=self.absent, **facts)  # type: ignore[arg-type]


class Benchmark:
    """A benchmark's stream, made as `densecl run` makes it; `densecl.run` takes its `scenario` too."""

    def __init__(self, plan: Plan):
        self.plan = plan

    @property
    def name(self) -> str:
        """Such as `voc15-5`."""
        return self.plan.settings.benchmark

    @cached_property
    def _built(self) -> tuple[Scenario, int]:
        return build_scenario(self.plan)

    @property
    def scenario(self) -> Scenario:
        """The stream with its data."""
        return self._built[0]

    @property
    def stream(self) -> Stream:
        """The steps, without data."""
        return self.scenario.stream

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label, in order of arrival; the first is background."""
        return self.stream.class_names

    @property
    def training(self) -> TrainingSettings:
        """Batches, lengths and rates of the recipe."""
        return self.plan.settings.training

    @property
    def train_stream(self) -> tuple[TrainStep, ...]:
        """The steps to train."""
        s, workers = self.plan.settings, self._built[1]
        return tuple(TrainStep(e, self.scenario, s.training, s.seed, workers) for e in self.scenario.experiences)

    @property
    def test_stream(self) -> tuple[TestStep, ...]:
        """The test images after each step."""
        size, workers = self.plan.settings.evaluation.batch, self._built[1]
        return tuple(TestStep(step.step, self.scenario, size, workers) for step in self.stream.steps)

    def metric(self, step: int, before: Sequence[dict[str, Any]] = ()) -> Metric:
        """The metric after a step; `before` are the scores that it gave after earlier ones, for forgetting."""
        return Metric(self.stream, step, before, self.plan.settings.evaluation.absent == "skip")

    @torch.no_grad()
    def evaluate(
        self, predict: Callable[[Tensor], Tensor], step: int, before: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        """Scores of a function from normalised images (B, 3, H, W) to logits (B, C, H, W) or labels (B, H, W)."""
        metric = self.metric(step, before)
        for batch in self.test_stream[step].loader():
            metric.update(predict(batch.image).cpu(), batch.target)
        return metric.compute()

    def __repr__(self) -> str:
        return f"Benchmark({self.name!r}, {len(self.plan.steps)} steps)"


def benchmark(
    name: str,
    *,
    seed: int = 0,
    assignments: Iterable[str] = (),
    data: Path | str | None = None,
    validation: float | None = None,
    workers: int | None = None,
    catalogue: Path | str | None = None,
) -> Benchmark:
    """A benchmark of classes for a loop of one's own, such as `voc15-5s`; the options are those of `densecl.run`.

    Raises:
        DenseCLError: bad input, named; a benchmark of several tasks, which have no common labels.
    """
    plan = make_plan(
        name,
        "finetune",
        seed=seed,
        assignments=assignments,
        data=None if data is None else Path(data),
        validation=validation,
        workers=workers,
        catalogue=None if catalogue is None else Path(catalogue),
        device="cpu",
    )
    if plan.settings.stream.kind == "tasks":
        raise SettingError(f"{name} is a sequence of tasks", "use densecl.run, or a benchmark of classes")
    return Benchmark(plan)
