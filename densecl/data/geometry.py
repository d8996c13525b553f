"""How the values of a truth change when its image is mirrored, enlarged or turned, beside moving with their pixels."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Geometry:
    """Of class labels: they stay as they are. A task of other truths has a subclass, see `Task.geometry`."""

    fill: float = 255  # of padding: the value of a pixel of which nothing is known

    def mirrored(self, truth: "Tensor") -> "Tensor":
        """The values, (H, W) or (C, H, W), of an image that was mirrored left to right; pixels have moved already."""
        return truth

    def enlarged(self, truth: "Tensor", factor: float) -> "Tensor":
        """The values where things look `factor` times as large as in the whole image."""
        return truth

    def turned(self, truth: "Tensor", degrees: float) -> "Tensor":
        """The values of an image that was turned counter-clockwise."""
        return truth


LABELS = Geometry()
