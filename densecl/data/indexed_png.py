"""Masks as PNGs that carry VOC's colours of classes."""

import os

import numpy as np
from PIL import Image

from densecl.palette import palette

__all__ = ["palette", "write_mask"]


def write_mask(mask: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write labels (H, W) uint8 as a palette PNG."""
    image = Image.fromarray(mask)
    image.putpalette(palette())
    image.save(path, format="PNG", compress_level=1)
