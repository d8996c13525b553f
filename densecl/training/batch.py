"""A batch, as strategies see it and as the loader collates it."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from densecl.models.network import middle
from densecl.streams.samples import UNCOUNTED


class Batch(NamedTuple):
    """Samples of one iteration.

    Attributes:
        image: (B, 3, H, W) float32, normalised (uint8 on the way from the loader to the loop).
        target: (B, H, W) int64 labels, 0 background, 255 void (uint8 on that way); or (B, C, H, W) float32 for image
            targets.
        weight: (B,) or (B, H, W) float32 loss weights, None means 1.
        step: (B,) int64, the step whose labels a sample carries; replayed samples carry an earlier one.
        index: (B,) int64, position in the data set; -1 for synthetic images, -2 for copies that do not count.
        extra: further maps of a reader by name, (B, H, W) uint8, moved with the images; see `DenseDataset.extra_files`.
    """

    image: Tensor
    target: Tensor
    weight: Tensor | None
    step: Tensor
    index: Tensor
    extra: Mapping[str, Tensor] = MappingProxyType({})

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with all of its tensors changed alike."""
        *parts, extra = self
        changed = (None if part is None else change(part) for part in parts)
        return Batch(*changed, {name: change(values) for name, values in extra.items()})  # type: ignore[arg-type]

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return self.map(lambda part: part.to(device, non_blocking=True))


def unkeyed(image: Tensor, target: Tensor) -> Batch:
    """A batch of which steps and positions do not matter: all are 0."""
    zeros = torch.zeros(len(target), dtype=torch.int64, device=target.device)
    return Batch(image, target, None, zeros, zeros)


def normalise(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) in 0..255 -> float32, (x / 255 - mean) / std; mean and std (3, 1, 1) in 0..1."""
    return image.float().mul_(1 / 255).sub_(mean).div_(std)


def thinned(batch: Batch, stride: int) -> Batch:
    """The batch with labels and weights of the middle pixel of each square of side `stride`; images as they are."""
    return batch.map(lambda part: middle(part, stride) if part.ndim == 3 else part)._replace(image=batch.image)


def sizes(batch: Batch, void: int = 255) -> Tensor:
    """(2,) float32: the weight of a batch's labelled pixels, and its images; see `labelled_share` for image targets.

    The supervised loss is a mean over the first, all other terms over the second; so a batch in parts, here or in
    several processes, weighs the terms of each part by its shares of the whole. Uncounted samples have no weight.
    """
    counted = (batch.index != UNCOUNTED).float()
    weight = (batch.target != void).float() if batch.target.ndim == 3 else batch.image.new_ones(len(counted), 1, 1)
    return torch.stack([(weighted(weight, batch) * counted.view(-1, 1, 1)).sum(), counted.sum()])


def weighted(weight: Tensor, batch: Batch) -> Tensor:
    """Weights of pixels (B, H, W), times the batch's own."""
    if batch.weight is None:
        return weight
    return weight * (batch.weight if batch.weight.ndim > 1 else batch.weight.view(-1, 1, 1))


def labelled_share(batch: Batch) -> Tensor:
    """The weight of a batch's labelled pixels over the number of all its pixels.

    Image targets have pixels where their task weights those (depth, normals); else images count, and the share is 1.
    """
    labelled, images = sizes(batch)
    of_pixels = batch.target if batch.target.ndim == 3 else batch.weight
    pixels = of_pixels[0].numel() if of_pixels is not None else 1
    return labelled / (images * pixels).clamp(min=1)


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """A batch in parts of nearly equal size, none of a single sample."""
    size = len(batch.image)
    parts = max(1, min(parts, size // 2))
    for a, b in itertools.pairwise(size * k // parts for k in range(parts + 1)):
        yield batch.map(lambda part, own=slice(a, b): part[own])
