"""Layers that several networks share."""

from typing import Literal

from torch import nn

from densecl.errors import SettingError

Norm = Literal["batch", "instance"]
NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}  # instance: not affine


def norm_layer(name: str, channels: int) -> nn.Module:
    """BatchNorm, or instance normalisation without scale and shift."""
    if name not in NORMS:
        raise SettingError(f"norm={name} does not exist", f"use one of {', '.join(NORMS)}")
    return NORMS[name](channels)


class ConvNormReLU(nn.Sequential):
    """Convolution without bias that keeps the size (divided by `stride`), BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1):
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )
