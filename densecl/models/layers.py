"""Pieces that several networks share."""

from torch import nn


class ConvNormReLU(nn.Sequential):
    """Convolution without bias that keeps the size (divided by `stride`), BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )
