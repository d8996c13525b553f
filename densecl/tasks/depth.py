"""Depth of each pixel, in metres along the optical axis (or its inverse); L1 where the truth is known."""

from typing import TYPE_CHECKING

from densecl.data.geometry import Geometry
from densecl.settings.task_recipe import Positive
from densecl.tasks.base import Picture, Prepared, Task, truth_or_nothing

if TYPE_CHECKING:
    from torch import Tensor

    from densecl.metrics.geometry import DepthMetrics
    from densecl.training.batch import Batch


class Depth(Task):
    """One output; L1 loss, as in the field (Liu et al., MTAN, CVPR 2019). A depth of 0 is no depth and counts nowhere.

    Errors are of all known pixels of all test images together: absolute and RMSE in metres (of an inverse depth in
    1 / `unit`), relative ones, and the shares whose ratio to the truth is below 1.25, 1.25^2 and 1.25^3.
    """

    kind = "depth"
    primary = "absolute"
    higher_is_better = False
    measures = ("absolute", "relative", "rmse", "delta1", "delta2", "delta3")
    truth = "depth"
    outputs = 1
    unit: Positive = 1.0  # metres of an output of 1
    inverse: bool = False  # outputs are unit / depth: far things differ little, as on streets
    limit: Positive | None = None  # metres from where a depth is not known
    # what an augmentation shows `f` times as large is `f` times as near (MTAN), or as far as it was
    scaled: bool = True

    def geometry(self) -> Geometry:
        """Things that look larger are nearer, if `scaled`."""
        return DepthGeometry(self.scaled)

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """The image as it is, and its depth, (B, 1, H, W) in units, with a weight of 0 where it is not known."""
        depth = truth_or_nothing(mask, 1)
        known = depth > 0 if self.limit is None else (depth > 0) & (depth < self.limit)
        values = self.unit / depth if self.inverse else depth / self.unit
        return Prepared(image, values.masked_fill(~known, 0), known[:, 0].float())

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """Mean absolute error over known pixels."""
        from densecl.losses.images import absolute_error, known

        return absolute_error(logits, batch.target, weight=batch.weight, valid=known(batch.target))

    def distillation(self, logits: "Tensor", teacher_logits: "Tensor") -> "Tensor":
        """Mean absolute difference to the teacher's depth."""
        from densecl.losses.images import absolute_error

        return absolute_error(logits, teacher_logits)

    def metrics(self) -> "DepthMetrics":
        """Sums over pixels."""
        from densecl.metrics.geometry import DepthMetrics

        return DepthMetrics(1.0 if self.inverse else self.unit)

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """Depth in colours over the range of the truth, near is dark; the truth, if there is one, has the legend."""
        scale, ending = (1.0, "") if self.inverse else (self.unit, " m")
        truth = self.prepare(image[None], mask[None]).target[0, 0].cpu() * scale
        predicted = output[0].float().cpu() * scale
        known = truth != 0
        of_range = truth[known] if known.any() else predicted
        low, high = float(of_range.min()), float(of_range.max())
        legend = f"{low:.1f}-{high:.1f}{ending}"
        span = max(high - low, 1e-6)
        shown = paint((predicted - low) / span, known | True, "" if known.any() else legend)
        return Picture(image, shown, paint((truth - low) / span, known, legend if known.any() else ""))


def paint(values: "Tensor", known: "Tensor", legend: str) -> "Tensor":
    """(3, H, W) uint8 RGB of values (H, W) in 0..1, those outside clamped, black where not known.

    With a legend the scale stands below, its ends in words.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont

    from densecl.palette import scale

    colours = np.frombuffer(scale(), np.uint8).reshape(256, 3)
    pixels = colours[(values.clamp(0, 1) * 255).round().byte().numpy()] * known.numpy()[..., None]  # (H, W, 3)
    height, width = values.shape
    if legend and height >= 32:
        bar = max(3, height // 32)
        pixels[-bar:] = colours[np.linspace(0, 255, width).astype(np.uint8)]
        picture = Image.fromarray(pixels)
        font = ImageFont.load_default(max(9, height // 16))
        ImageDraw.Draw(picture).text(
            (2, height - bar - 1), legend, "white", font, "lb", stroke_width=1, stroke_fill="black"
        )
        pixels = np.array(picture)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class DepthGeometry(Geometry):
    """Of depth."""

    fill = 0.0

    def __init__(self, scaled: bool):
        self.scaled = scaled

    def enlarged(self, truth: "Tensor", factor: float) -> "Tensor":
        """Nearer by the factor."""
        return truth / factor if self.scaled else truth
