"""The training and test samples of a stream as torch data sets: what a loader's workers run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

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
    """Names one draw of one sample; equal keys give equal tensors, whichever worker loads them."""

    source: int  # the step whose labels it carries
    position: int  # in that step's list of images
    step: int  # the step being trained
    epoch: int
    counts: bool = True  # False: a copy for a process that has no share of a small batch


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
        reader: of all steps, or one a step where each has a data set of its own.
        steps: images and label table of each.
        transform: of all steps, or one a step.
        seed: of augmentation.
    """

    def __init__(
        self,
        reader: Reader | Sequence[Reader],
        steps: Sequence[StepImages],
        transform: Transform | Sequence[Transform],
        seed: int,
    ):
        n = len(steps)
        self.readers = tuple(reader) if isinstance(reader, Sequence) else (reader,) * n
        self.transforms = tuple(transform) if isinstance(transform, Sequence) else (transform,) * n
        self.steps, self.seed = tuple(steps), seed

    @property
    def reader(self) -> Reader:
        """Of the first step."""
        return self.readers[0]

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        images = self.steps[key.source]
        index = int(images.indices[key.position])
        image, mask = self.readers[key.source].read(index)
        rng = generator(self.seed, "augmentation", key.step, key.epoch, index, key.source)
        image, mask = self.transforms[key.source](image, mask, rng)
        return LoadedSample(image, remap(mask, images.table), key.source, index if key.counts else UNCOUNTED)


class PlainSamples(Dataset[tuple[Tensor, Tensor]]):
    """One step's samples without random augmentation as (normalised image, int64 target).

    This is `experience.dataset`: what stock Avalanche plugins iterate over. With a `task`, input and target are what
    that makes of image and mask.
    """

    def __init__(
        self,
        reader: Reader,
        images: StepImages,
        transform: Transform,
        mean: Tensor,
        std: Tensor,
        task: Task | None = None,
    ):
        self.reader, self.images, self.transform, self.mean, self.std = reader, images, transform, mean, std
        self.task = task

    def __len__(self) -> int:
        return len(self.images.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        image, mask = self.reader.read(int(self.images.indices[position]))
        image, mask = self.transform(image, mask, np.random.default_rng(0))
        target = remap(mask, self.images.table)
        if self.task is not None:
            image, target = (part[0] for part in self.task.prepare(image[None], target[None]))
            return image.float().div(255).sub(self.mean).div(self.std), target
        return image.float().div(255).sub(self.mean).div(self.std), target.long()


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
