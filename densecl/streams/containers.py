"""What a scenario is made of: experiences, streams, samples. The makers are in `scenario` and `sequence`."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densecl.streams import protocol
from densecl.streams.samples import StepImages, TestSamples, TrainingSamples
from densecl.tasks import Task

with warnings.catch_warnings():
    # QP solvers, jaxopt and pkg_resources announce themselves at import; none of them is used here.
    warnings.simplefilter("ignore")
    logging.getLogger("jax").setLevel(logging.ERROR)
    from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
    from avalanche.benchmarks.scenarios.generic_scenario import CLScenario, EagerCLStream


class Normalisation(NamedTuple):
    """Mean and standard deviation of RGB in 0..1, (3, 1, 1) each."""

    mean: Tensor
    std: Tensor


class DenseExperience(DatasetExperience):
    """The data of one step.

    Attributes:
        step: counted from 0.
        task: what the network must output.
        new_classes: labels that arrive at this step.
        seen_classes: labels of this and all earlier steps, background excluded.
        images: indices into the data set and the label table.
        presence: (n, 256) bool, which labels of this step's targets each of its images holds.
    """

    def __init__(
        self,
        dataset: Any,
        step: int,
        task: Task,
        new: Sequence[int],
        seen: Sequence[int],
        images: StepImages,
        presence: np.ndarray,
    ):
        super().__init__(dataset=dataset, current_experience=step)
        self.step, self.task, self.images, self.presence = step, task, images, presence
        self.new_classes: tuple[int, ...] = tuple(new)
        self.seen_classes: tuple[int, ...] = tuple(seen)

    @property
    def n_outputs(self) -> int:
        """Outputs the network has after this step, output 0 included; of a task that knows its own, those."""
        return 1 + len(self.seen_classes) if self.task.outputs is None else self.task.outputs

    # the names stock plugins look for
    @property
    def classes_in_this_experience(self) -> list[int]:
        """Labels that arrive at this step."""
        return list(self.new_classes)

    @property
    def previous_classes(self) -> list[int]:
        """Labels of earlier steps."""
        return [c for c in self.seen_classes if c not in self.new_classes]

    @property
    def classes_seen_so_far(self) -> list[int]:
        """Labels of this and all earlier steps."""
        return list(self.seen_classes)


@dataclass(frozen=True)
class StreamInfo:
    """What a scenario knows besides its streams.

    Attributes:
        steps: class ids of each step that is trained.
        groups: class ids of the benchmark's steps; the same, but for `joint`, which trains them all in one.
        labels: the label preset. setting: which images a step has.
        later: how many training images of each step hold a class of a later step.
    """

    steps: protocol.Steps
    groups: protocol.Steps
    setting: str
    labels: str
    later: tuple[int, ...] = ()


class Scenario(CLScenario):
    """A stream of steps: of one task whose classes arrive over time, or of tasks.

    Attributes:
        train_stream, test_stream: DenseExperience of each step.
        kind: "classes", or "tasks": each step is a task of its own, and so are its scores.
        by_task: whether each step has a head of its own, and the method is told the step: of "tasks", and of "classes"
            where the method asks for it (`streams.told`).
        tasks: of each step.
        class_names: by label; [0] is background, or `other` where the data set has none. Of a sequence of tasks: empty.
        names: the same of each task; empty for tasks without classes.
        has_background: whether output 0 is a class.
        settings: how the stream was made.
        fingerprint: hash of image names, label tables and classes; equal streams have equal ones.
        training: samples by key, for the loader.
        tests: samples for evaluation, of each task; a class-incremental stream has one set for all steps, unless the
            method is told the step.
        test: the first of them.
    """

    train_stream: EagerCLStream
    test_stream: EagerCLStream

    def __init__(
        self,
        train: list[DenseExperience],
        test: list[DenseExperience],
        *,
        class_names: tuple[str, ...],
        settings: StreamInfo,
        training: TrainingSamples,
        tests: Sequence[TestSamples],
        normalisation: Normalisation,
        fingerprint: str,
        kind: Literal["classes", "tasks"] = "classes",
        names: Sequence[tuple[str, ...]] = (),
        by_task: bool = False,
    ):
        super().__init__([EagerCLStream("train", train), EagerCLStream("test", test)])
        self.tasks = tuple(experience.task for experience in train)
        self.class_names, self.settings, self.normalisation = class_names, settings, normalisation
        self.training, self.tests, self.fingerprint = training, tuple(tests), fingerprint
        self.kind, self.names, self.test = kind, tuple(names) or (class_names,), self.tests[0]
        self.by_task = by_task or kind == "tasks"
        self.has_background = train[0].task.has_background

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Labels of the benchmark's steps, in order of arrival; of a sequence, each task's own."""
        if self.kind == "tasks":
            return self.settings.groups
        number = protocol.arrival(self.settings.groups)
        return tuple(tuple(number[c] for c in group) for group in self.settings.groups)


def normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    """Of numbers in 0..1."""
    return Normalisation(*(torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (mean, std)))


def hold_out(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted (kept, held-out) positions of n training images."""
    shuffled = np.random.default_rng([seed, 4711]).permutation(n)
    count = round(share * n)
    if share and not 0 < count < n:
        count = 1
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])
