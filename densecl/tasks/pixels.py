"""Tasks whose outputs are RGB: the unit of such outputs."""

from torch import Tensor

from densecl.metrics.colour import to_uint8

GREY, SPREAD = 127.5, 63.75  # 0 is mid-grey and +-2 are black and white, so outputs start near the range of images


def encode(image: Tensor) -> Tensor:
    """RGB in 0..255 to outputs: float32 in -2..2."""
    return (image.float() - GREY) / SPREAD


def decode(output: Tensor) -> Tensor:
    """Outputs to RGB in 0..255, not clamped."""
    return output * SPREAD + GREY


def decode_uint8(output: Tensor) -> Tensor:
    """Outputs to the RGB image that would be stored."""
    return to_uint8(decode(output.float()))
