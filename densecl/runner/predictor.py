"""Predictions of a strategy for one image of any size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as transform

from densecl.models.network import Output
from densecl.runner.evaluation import see
from densecl.tasks import Task
from densecl.training.loop import Loop
from densecl.training.precision import widened

Size = int | Literal["full"]

LEAST = 32  # pixels a side that a network sees: enough for a stride of 32
LONGEST = 8192  # pixels of the longer side, and
LARGEST = 2**21  # pixels in all, those of Cityscapes: the memory of most machines holds their features
BAND = 2**24  # values of logits that are enlarged at a time


@dataclass(frozen=True)
class Predictor:
    """A strategy that answers for single images; its network is that of the task already.

    Attributes:
        labels: of segmentation, the run's label of each output.
        size: of the shorter side, or "full", see `EvaluationSettings`.
    """

    loop: Loop
    task: Task
    labels: tuple[int, ...]
    size: Size

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Labels (H, W) uint8 of an RGB image (H, W, 3) uint8; of a task of values, the picture (H, W, 3) uint8."""
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        height, width = image.shape[1:]
        seen = resized(image, seen_size(height, width, self.size))[None]
        output = widened(see(self.loop, self.task, seen, torch.zeros(1, *seen.shape[2:], dtype=torch.uint8))[0])
        if self.task.kind == "segmentation":
            return np.array(self.labels, np.uint8)[labels_of(self.loop, output, (height, width))]
        logits = _scaled(output.logits.float(), (height, width))[0].cpu()
        picture = self.task.picture(image, logits, torch.zeros(height, width, dtype=torch.uint8)).output
        return picture.permute(1, 2, 0).contiguous().numpy()


def seen_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """(height, width) at which a network sees an image: that of the evaluation of its run, but without a crop.

    The shorter side becomes `size` and the longer one follows, rounded down; "full" leaves both. Images that would be
    smaller than `LEAST` or larger than `LONGEST` and `LARGEST` are brought there, if need be at another aspect.
    """
    shorter = min(height, width)
    wanted = shorter if size == "full" else size
    sides = [side * wanted // shorter for side in (height, width)]
    excess = math.sqrt(sides[0] * sides[1] / LARGEST)
    if excess > 1:
        sides = [int(side / excess) for side in sides]
    low, high = (min(max(side, LEAST), LONGEST) for side in sides)
    return low, high


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8 at another size, resized like images of the test stream."""
    return image if tuple(image.shape[1:]) == size else transform.resize_image(image, list(size))


def labels_of(loop: Loop, output: Output, size: tuple[int, int] | None = None) -> np.ndarray:
    """(H, W) int64: the outputs that the strategy gives to the pixels of one image.

    Logits are scaled bilinearly to another `size` (height, width), in bands where they are many.
    """
    logits: list[Tensor] | Iterator[Tensor] = [output.logits]
    if size is not None and tuple(output.logits.shape[-2:]) != size:
        height, width = size
        rows = max(1, BAND // (output.logits.shape[1] * width))
        if rows < height:
            logits = (band(output.logits, size, top, min(top + rows, height)) for top in range(0, height, rows))
        else:
            logits = [_scaled(output.logits, size)]
    return np.concatenate([loop.strategy.predict(output._replace(logits=part))[0].cpu().numpy() for part in logits])


def band(logits: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows top..bottom of (1, C, h, w) scaled bilinearly to `size` (align_corners=False): (1, C, bottom - top, W)."""
    height, width = logits.shape[2], size[1]
    centre = (torch.arange(top, bottom, device=logits.device, dtype=torch.float32) + 0.5) * (height / size[0]) - 0.5
    centre = centre.clamp(0, height - 1)
    above = centre.floor().long()
    below = (above + 1).clamp(max=height - 1)
    share = (centre - above).view(-1, 1)
    rows = logits[:, :, above] * (1 - share) + logits[:, :, below] * share  # (1, C, n, w)
    return F.interpolate(rows, size=(bottom - top, width), mode="bilinear", align_corners=False)


def _scaled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The logits at another size; where that is smaller, all of them count."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False, antialias=True)
