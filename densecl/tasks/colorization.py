"""Colorization: from luminance to the two chroma channels of YCbCr (Matsumoto and Yanai, 2018)."""

from typing import TYPE_CHECKING

from densecl.settings.task_recipe import Positive
from densecl.tasks.base import Picture, Prepared, Task

if TYPE_CHECKING:
    from torch import Tensor

    from densecl.training.batch import Batch


class Colorization(Task):
    """Two outputs, Cb and Cr; L2 loss.

    The network sees Y (BT.601, full range) in all three channels, since the first convolution may be another task's.
    """

    kind = "colorization"
    primary = "mse"
    higher_is_better = False
    measures = ("mse", "ssim", "mse_chroma", "baseline", "baseline_chroma")
    outputs = 2
    # chroma of an output of 1, on the scale of 0..255. It changes the size of the loss, not its minimum: with 50, the
    # chroma of saturated drawings has a variance near 1
    scale: Positive = 50.0

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """Y three times (float32, not rounded), and Cb and Cr around 0 in units of `scale`."""
        from densecl.metrics.colour import rgb_to_ycbcr

        ycbcr = rgb_to_ycbcr(image)
        return Prepared(ycbcr[:, :1].repeat(1, 3, 1, 1), (ycbcr[:, 1:] - 128) / self.scale)

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """Mean squared error of the scaled chroma."""
        from densecl.losses.images import squared_error

        return squared_error(logits, batch.target, weight=batch.weight)

    def scores(self, output: "Tensor", image: "Tensor", target: "Tensor") -> dict[str, "Tensor"]:
        """Scores of each image, (B,) each.

        `mse` and `ssim` of the merged RGB images (uint8); `mse_chroma` of Cb and Cr on the scale of 0..255; `baseline`
        and `baseline_chroma`, both errors of predicting grey.
        """
        from densecl.metrics.image_quality import mse, ssim

        output, grey = output.float(), target.new_zeros(target.shape)
        merged = self.merge(image, output)
        return {
            "mse": mse(merged, image),
            "ssim": ssim(merged, image),
            "mse_chroma": mse(output, target) * self.scale**2,
            "baseline": mse(self.merge(image, grey), image),
            "baseline_chroma": mse(grey, target) * self.scale**2,
        }

    def merge(self, image: "Tensor", output: "Tensor") -> "Tensor":
        """The coloured images: luminance of (B, 3, H, W) uint8 and outputs (B, 2, H, W) as uint8 RGB."""
        import torch

        from densecl.metrics.colour import rgb_to_ycbcr, to_uint8, ycbcr_to_rgb

        y = rgb_to_ycbcr(image)[:, :1]
        return to_uint8(ycbcr_to_rgb(torch.cat([y, output.float() * self.scale + 128], 1)))

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """Luminance, the coloured image, the true one."""
        from densecl.metrics.colour import rgb_to_ycbcr, to_uint8

        grey = to_uint8(rgb_to_ycbcr(image)[:1]).expand(3, -1, -1)
        return Picture(grey.contiguous(), self.merge(image[None], output[None])[0], image)
