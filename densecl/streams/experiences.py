"""Experiences and scenarios: what the makers in `scenario` put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densecl.data.dataset import DenseDataset
from densecl.data.transforms import Compose
from densecl.streams.samples import PlainSamples, StepImages, TestSamples, TrainingSamples, Transform
from densecl.streams.stream import Step, Stream

if TYPE_CHECKING:
    from avalanche.benchmarks.scenarios.generic_scenario import CLScenario, EagerCLStream

IDENTITY = Compose([])


class Transforms(NamedTuple):
    """Transforms of image and mask together; None leaves them as they are.

    Attributes:
        augment: random, of training samples.
        plain: a fixed one of the same output size, for passes without augmentation.
        evaluate: of evaluated samples.
    """

    augment: Transform | None = None
    plain: Transform | None = None
    evaluate: Transform | None = None


AS_THEY_ARE = Transforms()


class Normalisation(NamedTuple):
    """Mean and standard deviation of RGB in 0..1, (3, 1, 1) each."""

    mean: Tensor
    std: Tensor


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
        later: how many training images of each step hold a class of a later step.
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
        """The same as Avalanche's scenario."""
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


def assembled(
    stream: Stream,
    readers: Sequence[DenseDataset],
    images: Sequence[StepImages],
    presence: Sequence[np.ndarray],
    tests: Sequence[TestSamples],
    transforms: Sequence[Transforms],
    normalised: Normalisation,
    seed: int,
    fingerprint: str,
    later: tuple[int, ...],
) -> Scenario:
    """The scenario of a stream whose images and label tables are known, one of each a step."""

    def experience(
        step: Step, reader: Any, own: StepImages, transform: Transform | None, held: np.ndarray
    ) -> Experience:
        samples = PlainSamples(reader, own, transform or IDENTITY, *normalised, task=step.task)
        return Experience(**vars(step), images=own, presence=held, dataset=samples)

    train, test = [], []
    for step, reader, own, held, change in zip(stream.steps, readers, images, presence, transforms, strict=True):
        train.append(experience(step, reader, own, change.plain, held))
        samples = tests[step.step if stream.by_task else 0]
        unknown = np.zeros((len(samples), 256), dtype=bool)  # test masks are not scanned
        own = StepImages(samples.indices, samples.table)
        test.append(experience(step, samples.reader, own, samples.transform, unknown))
    training = TrainingSamples(
        readers,
        images,
        [change.augment or IDENTITY for change in transforms],
        seed,
        [change.plain or IDENTITY for change in transforms],
    )
    return Scenario(stream, tuple(train), tuple(test), training, tuple(tests), normalised, fingerprint, later)
