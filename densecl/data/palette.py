"""VOC's colours of classes, and masks as PNGs that carry them."""

import functools
import os

import numpy as np
from PIL import Image


@functools.cache
def palette() -> bytes:
    """The colours of the labels 0..255: 768 bytes, red, green, blue.

    Bits 0, 3, 6 of a label become the highest bits of red, bits 1, 4, 7 those of green, bits 2, 5 those of blue.
    """
    return bytes(
        sum(((label >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
        for label in range(256)
        for channel in range(3)
    )


def write_mask(mask: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write labels (H, W) uint8 as a palette PNG."""
    image = Image.fromarray(mask)
    image.putpalette(palette())
    image.save(path, format="PNG", compress_level=1)
