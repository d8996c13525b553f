"""Training and test samples of a stream as torch data sets, run by the loader's workers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from densecl.data.dataset import DenseDataset, Sample
from densecl.seeding import generator
from densecl.tasks import Task

UNCOUNTED = -2  # the index of a sample that takes no part in the loss

Transform = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


class Transforms(NamedTuple):
    """Transforms of image and mask together; None leaves them as they are."""

    augment: Transform | None = None  # random, of training samples
    plain: Transform | None = None  # a fixed one of the same output size, for passes without augmentation
    evaluate: Transform | None = None  # of evaluated samples


AS_THEY_ARE = Transforms()


class Normalisation(NamedTuple):
    """Mean and standard deviation of RGB in 0..1, (3, 1, 1) each."""

    mean: Tensor
    std: Tensor


class SampleKey(NamedTuple):
    """Names one draw of one sample; equal keys give equal tensors, whichever worker loads them."""

    source: int  # the step whose images it is of
    position: int  # in that step's list of images
    step: int  # being trained
    epoch: int  # with the step, decides the augmentation
    counts: bool = True  # False for a copy in a process that has no share of a small batch
    labels: Literal["own", "current", "all"] = "own"  # of its own step, of the trained one, or of all steps up to that
    augmented: bool = True  # False for the fixed transform


class LoadedSample(NamedTuple):
    """An image (3, H, W) uint8; labels (H, W) uint8, or a map (C, H, W) float32 of another truth.

    Then the step of its labels, its position in the data set or UNCOUNTED, and further maps (H, W) uint8 by name.
    """

    image: Tensor
    target: Tensor
    step: int
    index: int
    extra: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class StepImages:
    """Images and label table of one step: indices (n,) into the data set, table (256,) uint8."""

    indices: np.ndarray
    table: Tensor


def remap(mask: Tensor, table: Tensor) -> Tensor:
    """Give every pixel of a uint8 mask, (H, W) or (B, H, W), its new label by a table (256,)."""
    # index_select on a flat index is the fastest of table[mask], take, gather and NumPy's take: 0.12 ms for 512x512
    return table.index_select(0, mask.reshape(-1).int()).view(mask.shape)


def draw(
    reader: DenseDataset, index: int, table: Tensor, transform: Transform | None, rng: np.random.Generator
) -> Sample:
    """Image and labels of a data set, transformed: padding is void, also where void itself is trained (`mib2020`).

    Numbers, (C, H, W), take the place of labels where the reader is of another truth.
    """
    image, mask = reader.read(index)
    labels = mask if mask.is_floating_point() else remap(mask, table)
    if transform is not None:
        image, labels = transform(image, labels, rng)
    return Sample(image, labels if reader.has_masks else torch.zeros_like(labels))


def moved(values: Tensor, transform: Transform | None, rng: np.random.Generator) -> Tensor:
    """Move a map (H, W) uint8 like the mask of its image, whose transform draws from an equal generator; 255 pads."""
    if transform is None:
        return values
    return transform(values.new_zeros(3, *values.shape), values, rng)[1]  # draws depend on the image's size alone


@dataclass(eq=False)
class TrainingSamples(Dataset[LoadedSample]):
    """Samples of all steps by `SampleKey`; augmentation derives from (seed, step, epoch, index)."""

    readers: Sequence[DenseDataset]  # these three of each step
    steps: Sequence[StepImages]
    transforms: Sequence[Transforms]
    seed: int

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        index, reader = int(self.steps[key.source].indices[key.position]), self.readers[key.source]
        drawn = (self.seed, "augmentation", key.step, key.epoch, index, key.source)
        transforms = self.transforms[key.source]
        transform = transforms.augment if key.augmented else transforms.plain
        sample = draw(reader, index, self.table(key), transform, generator(*drawn))
        further = reader.read_extra(index).items()
        extra = {name: moved(torch.from_numpy(x), transform, generator(*drawn)) for name, x in further}
        step = key.step if key.labels == "current" else key.source
        return LoadedSample(*sample, step, index if key.counts else UNCOUNTED, extra)

    def table(self, key: SampleKey) -> Tensor:
        """(256,) uint8: original id -> label of a sample."""
        if key.labels != "all":
            return self.steps[key.source if key.labels == "own" else key.step].table
        tables = torch.stack([step.table for step in self.steps[: key.step + 1]])
        labelled = torch.where(tables == 255, 0, tables).amax(0)  # a class is labelled in one step at most
        return torch.where((tables == 255).all(0), 255, labelled)


@dataclass(eq=False)
class PlainSamples(Dataset[tuple[Tensor, Tensor]]):
    """One step's samples without random augmentation, (normalised image, int64 target) as the task makes them.

    `experience.dataset` is one; stock Avalanche plugins iterate over it.
    """

    reader: DenseDataset
    images: StepImages
    transform: Transform | None
    normalisation: Normalisation
    task: Task

    def __len__(self) -> int:
        return len(self.images.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        indices, table = self.images.indices, self.images.table
        sample = draw(self.reader, int(indices[position]), table, self.transform, np.random.default_rng(0))
        image, target = (part[0] for part in self.task.prepare(*(part[None] for part in sample))[:2])
        mean, std = self.normalisation
        return image.float().div(255).sub(mean).div(std), target


@dataclass(eq=False)
class TestSamples(Dataset[LoadedSample]):
    """The images a step is evaluated on, every true class with its own label."""

    __test__ = False  # not a test case

    reader: DenseDataset
    indices: np.ndarray
    table: Tensor
    transform: Transform | None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> LoadedSample:
        index = int(self.indices[position])
        return LoadedSample(*draw(self.reader, index, self.table, self.transform, np.random.default_rng(0)), -1, index)
