"""The training and test samples of a stream as torch data sets: what a loader's workers run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from densecl.data.labels import remap
from densecl.seeding import generator
from densecl.tasks import Task

UNCOUNTED = -2  # the index of a sample that takes no part in the loss

Transform = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


class Reader(Protocol):
    """What is needed of a data set's reader."""

    def __len__(self) -> int: ...
    def read(self, index: int, /) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and mask (H, W) uint8."""
        ...

    def read_mask(self, index: int, /) -> np.ndarray:
        """The mask alone."""
        ...

    def image_path(self, index: int, /) -> Path:
        """The file of an image."""
        ...

    def mask_path(self, index: int, /) -> Path:
        """The file of a mask."""
        ...


class SampleKey(NamedTuple):
    """Names one draw of one sample; equal keys give equal tensors, whichever worker loads them.

    Attributes:
        source: the step whose images it is of, and mostly whose labels it carries.
        position: in that step's list of images.
        step: being trained.
        epoch: with the step, decides the augmentation.
        counts: False for a copy in a process that has no share of a small batch.
        labels: the labels it carries: of its own step, of the step being trained, or of all steps up to that.
        augmented: False for the fixed transform.
    """

    source: int
    position: int
    step: int
    epoch: int
    counts: bool = True
    labels: Literal["own", "current", "all"] = "own"
    augmented: bool = True


class LoadedSample(NamedTuple):
    """image (3, H, W) uint8; target (H, W) uint8; the step of its labels; its position in the data set or UNCOUNTED."""

    image: Tensor
    target: Tensor
    step: int
    index: int


@dataclass(frozen=True)
class StepImages:
    """Images and label table of one step: indices (n,) into the data set, table (256,) uint8."""

    indices: np.ndarray
    table: Tensor


class TrainingSamples(Dataset[LoadedSample]):
    """Samples of all steps so far by `SampleKey`; augmentation derives from (seed, step, epoch, index).

    Args:
        readers: of each step.
        steps: images and label table of each.
        transforms: random ones of each step.
        seed: of augmentation.
        plain: fixed transforms of each step, for keys that are not augmented.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        steps: Sequence[StepImages],
        transforms: Sequence[Transform],
        seed: int,
        plain: Sequence[Transform] = (),
    ):
        self.readers, self.transforms, self.plain = tuple(readers), tuple(transforms), tuple(plain)
        self.steps, self.seed = tuple(steps), seed

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        images = self.steps[key.source]
        index = int(images.indices[key.position])
        image, mask = self.readers[key.source].read(index)
        rng = generator(self.seed, "augmentation", key.step, key.epoch, index, key.source)
        transform = (self.transforms if key.augmented else self.plain)[key.source]
        image, mask = transform(image, mask, rng)
        return LoadedSample(image, remap(mask, self.table(key)), key.source, index if key.counts else UNCOUNTED)

    def table(self, key: SampleKey) -> Tensor:
        """(256,) uint8: original id -> label of a sample."""
        if key.labels == "own":
            return self.steps[key.source].table
        if key.labels == "current":
            return self.steps[key.step].table
        tables = torch.stack([step.table for step in self.steps[: key.step + 1]])
        labelled = torch.where(tables == 255, 0, tables).amax(0)  # a class is labelled in one step at most
        return torch.where((tables == 255).all(0), 255, labelled)


class PlainSamples(Dataset[tuple[Tensor, Tensor]]):
    """One step's samples without random augmentation as (normalised image, int64 target).

    This is `experience.dataset`: what stock Avalanche plugins iterate over. Input and target are what the task makes of
    image and mask.
    """

    def __init__(self, reader: Reader, images: StepImages, transform: Transform, mean: Tensor, std: Tensor, task: Task):
        self.reader, self.images, self.transform, self.mean, self.std = reader, images, transform, mean, std
        self.task = task

    def __len__(self) -> int:
        return len(self.images.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        image, mask = self.reader.read(int(self.images.indices[position]))
        image, mask = self.transform(image, mask, np.random.default_rng(0))
        target = remap(mask, self.images.table)
        image, target = (part[0] for part in self.task.prepare(image[None], target[None]))
        return image.float().div(255).sub(self.mean).div(self.std), target


class TestSamples(Dataset[LoadedSample]):
    """The images a step is evaluated on, every true class with its own label."""

    __test__ = False  # not a test case

    def __init__(self, reader: Reader, indices: np.ndarray, table: Tensor, transform: Transform | None):
        self.reader, self.indices, self.table, self.transform = reader, indices, table, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> LoadedSample:
        index = int(self.indices[position])
        image, mask = self.reader.read(index)
        if self.transform is not None:
            image, mask = self.transform(image, mask, np.random.default_rng(0))
        return LoadedSample(image, remap(mask, self.table), -1, index)


def stack(samples: Sequence[LoadedSample]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image (B, 3, H, W) uint8; target (B, H, W) uint8; step (B,); index (B,)."""
    return (
        torch.stack([sample.image for sample in samples]),
        torch.stack([sample.target for sample in samples]),
        torch.tensor([sample.step for sample in samples]),
        torch.tensor([sample.index for sample in samples]),
    )
