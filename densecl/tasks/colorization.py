"""Colorization: from luminance to the two chroma channels of YCbCr (Matsumoto and Yanai, 2018)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densecl.losses.images import squared_error
from densecl.metrics.colour import rgb_to_ycbcr, to_uint8, ycbcr_to_rgb
from densecl.metrics.image_quality import ImageAverages, mse, ssim
from densecl.tasks.base import Picture, Prepared, Targets, Task


@dataclass(frozen=True)
class Colorization(Task):
    """Two outputs, Cb and Cr; L2 loss.

    The network sees Y (BT.601, full range) in all three channels, since the first convolution may be another task's.

    Attributes:
        scale: an output of 1 is so much chroma, on the scale of 0..255. It changes the size of the loss, not its
            minimum: with 50, chroma of saturated drawings has a variance near 1.
    """

    scale: float = 50.0

    @property
    def outputs(self) -> int:
        """Cb and Cr."""
        return 2

    @property
    def settings(self) -> dict[str, Any]:
        """The scale."""
        return {"scale": self.scale}

    def prepare(self, image: Tensor, mask: Tensor) -> Prepared:
        """Y three times (float32, not rounded), and Cb and Cr around 0 in units of `scale`."""
        ycbcr = rgb_to_ycbcr(image)
        return Prepared(ycbcr[:, :1].repeat(1, 3, 1, 1), (ycbcr[:, 1:] - 128) / self.scale)

    def loss(self, logits: Tensor, batch: Targets) -> Tensor:
        """Mean squared error of the scaled chroma."""
        return squared_error(logits, batch.target, weight=batch.weight)

    def metrics(self) -> "ColorizationMetrics":
        """See `ColorizationMetrics`."""
        return ColorizationMetrics(self)

    def merge(self, image: Tensor, output: Tensor) -> Tensor:
        """The coloured images: luminance of (B, 3, H, W) uint8 and outputs (B, 2, H, W) as uint8 RGB."""
        y = rgb_to_ycbcr(image)[:, :1]
        return to_uint8(ycbcr_to_rgb(torch.cat([y, output.float() * self.scale + 128], 1)))

    def picture(self, image: Tensor, output: Tensor, mask: Tensor) -> Picture:
        """Luminance, the coloured image, the true one."""
        grey = to_uint8(rgb_to_ycbcr(image)[:1]).expand(3, -1, -1)
        return Picture(grey.contiguous(), self.merge(image[None], output[None])[0], image)


class ColorizationMetrics(ImageAverages):
    """Averages over images.

    `mse` and `ssim` of the merged RGB images (uint8); `mse_chroma` of Cb and Cr on the scale of 0..255; `baseline`
    and `baseline_chroma`, both errors of predicting grey.
    """

    def __init__(self, task: Colorization):
        super().__init__(("mse", "ssim", "mse_chroma", "baseline", "baseline_chroma"))
        self._task = task

    def update(self, output: Tensor, image: Tensor, target: Tensor) -> None:
        """See `Metrics`."""
        task, output = self._task, output.float()
        merged = task.merge(image, output)
        grey = torch.zeros_like(target)
        self.add(
            {
                "mse": mse(merged, image),
                "ssim": ssim(merged, image),
                "mse_chroma": mse(output, target) * task.scale**2,
                "baseline": mse(task.merge(image, grey), image),
                "baseline_chroma": mse(grey, target) * task.scale**2,
            }
        )

    def compute(self) -> dict[str, Any]:
        """See the class."""
        return self.averages()


def colorization(name: str, *, scale: float = 50.0) -> Colorization:
    """The task of colouring grey images; see `Colorization`."""
    return Colorization(name, "colorization", "mse", higher_is_better=False, scale=scale)
