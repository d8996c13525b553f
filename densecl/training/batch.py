"""A batch, as strategies see it and as the loader collates it."""

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Samples of one iteration.

    Attributes:
        image: (B, 3, H, W) float32, normalised (uint8 on the way from the loader to the loop).
        target: (B, H, W) int64 labels, 0 background, 255 void; or (B, C, H, W) float32 for image targets.
        weight: (B,) or (B, H, W) float32 loss weights, None means 1.
        step: (B,) int64, the step whose labels a sample carries; replayed samples carry an earlier one.
        index: (B,) int64, position in the data set, -1 for synthetic images.
    """

    image: Tensor
    target: Tensor
    weight: Tensor | None
    step: Tensor
    index: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(*(None if part is None else part.to(device, non_blocking=True) for part in self))


def normalise(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) in 0..255 -> float32, (x / 255 - mean) / std; mean and std (3, 1, 1) in 0..1."""
    return image.float().mul_(1 / 255).sub_(mean).div_(std)
