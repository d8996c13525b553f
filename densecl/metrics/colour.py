"""RGB and YCbCr as JPEG defines it: ITU-R BT.601 weights, full range (JFIF 1.02)."""

import torch
from torch import Tensor

RED, BLUE = 0.299, 0.114  # weights in luminance; green has the rest
GREEN = 1 - RED - BLUE


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """Y in 0..255, Cb and Cr in 0.5..255.5 with grey at 128, floating, of (..., 3, H, W) in 0..255 of any type."""
    red, green, blue = (rgb if rgb.is_floating_point() else rgb.float()).unbind(-3)
    y = RED * red + GREEN * green + BLUE * blue
    # Cb = 128 - 0.168736 R - 0.331264 G + 0.5 B and Cr = 128 + 0.5 R - 0.418688 G - 0.081312 B
    return torch.stack([y, 128 + (blue - y) / (2 - 2 * BLUE), 128 + (red - y) / (2 - 2 * RED)], -3)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """The inverse of `rgb_to_ycbcr`, neither rounded nor clamped: colours outside RGB's cube stay outside."""
    y, cb, cr = (ycbcr if ycbcr.is_floating_point() else ycbcr.float()).unbind(-3)
    red, blue = y + (2 - 2 * RED) * (cr - 128), y + (2 - 2 * BLUE) * (cb - 128)
    return torch.stack([red, (y - RED * red - BLUE * blue) / GREEN, blue], -3)


def to_uint8(pixels: Tensor) -> Tensor:
    """Values in 0..255 rounded to the nearest integer, those outside clamped."""
    return pixels.round().clamp(0, 255).to(torch.uint8)
