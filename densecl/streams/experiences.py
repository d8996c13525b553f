"""Experiences and scenarios: streams with data, as the makers in `scenario` assemble them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from densecl.data.dataset import DenseDataset
from densecl.streams.samples import Normalisation, PlainSamples, StepImages, TestSamples, TrainingSamples, Transforms
from densecl.streams.stream import Step, Stream

if TYPE_CHECKING:
    from avalanche.benchmarks.scenarios.generic_scenario import CLScenario, EagerCLStream


def normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    """Mean and standard deviation, numbers in 0..1, as tensors."""
    return Normalisation(*(torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (mean, std)))


@dataclass(frozen=True, eq=False)
class Experience(Step):
    """A step with its data.

    Attributes:
        images: indices into the data set, and the label table.
        presence: (n, 256) bool, the labels of this step's targets in each of its images.
        dataset: its samples without random augmentation, (normalised image, target) each.
    """

    images: StepImages
    presence: np.ndarray
    dataset: PlainSamples


@dataclass(frozen=True)
class Scenario:
    """A stream with readers.

    Attributes:
        stream: the steps.
        experiences: training data of each step.
        test_experiences: test data of each step.
        training: samples by key, for the loader.
        tests: test samples of each head; a stream with one head has one set for all steps.
        normalisation: of all images.
        fingerprint: hash of image names, label tables and classes; equal streams have equal ones.
        later: number of training images of each step that hold a class of a later step.
    """

    stream: Stream
    experiences: tuple[Experience, ...]
    test_experiences: tuple[Experience, ...]
    training: TrainingSamples
    tests: tuple[TestSamples, ...]
    normalisation: Normalisation
    fingerprint: str
    later: tuple[int, ...]

    def tests_of(self, head: int) -> TestSamples:
        """The test samples of a head."""
        return self.tests[head if self.stream.by_task else 0]

    @cached_property
    def avalanche(self) -> "CLScenario":
        """Avalanche's scenario of the same experiences."""
        from densecl.streams.containers import as_avalanche

        return as_avalanche(self)

    @property
    def train_stream(self) -> "EagerCLStream":
        """Training experiences as Avalanche's stream."""
        return self.avalanche.train_stream  # type: ignore[attr-defined]

    @property
    def test_stream(self) -> "EagerCLStream":
        """Test experiences as Avalanche's stream."""
        return self.avalanche.test_stream  # type: ignore[attr-defined]


class StepData(NamedTuple):
    """The training data of a step; `presence` is (n, 256) bool, the labels of its targets in each of its images."""

    reader: DenseDataset
    images: StepImages
    presence: np.ndarray
    transforms: Transforms


def assembled(
    stream: Stream,
    data: Sequence[StepData],
    tests: Sequence[TestSamples],
    normalised: Normalisation,
    seed: int,
    fingerprint: str,
    later: tuple[int, ...],
) -> Scenario:
    """Make the scenario of a stream from the data of each step and the test samples of each head."""
    train, test = [], []
    for step, (reader, images, presence, transforms) in zip(stream.steps, data, strict=True):
        samples = PlainSamples(reader, images, transforms.plain, normalised, step.task)
        train.append(Experience(**vars(step), images=images, presence=presence, dataset=samples))
        own = tests[step.step if stream.by_task else 0]
        images, unknown = StepImages(own.indices, own.table), np.zeros((len(own), 256), dtype=bool)
        samples = PlainSamples(own.reader, images, own.transform, normalised, step.task)
        test.append(Experience(**vars(step), images=images, presence=unknown, dataset=samples))  # masks are not scanned
    training = TrainingSamples([d.reader for d in data], [d.images for d in data], [d.transforms for d in data], seed)
    return Scenario(stream, tuple(train), tuple(test), training, tuple(tests), normalised, fingerprint, later)
