"""Photographs of any kind as RGB of 8 bits, as a person sees them: the one reader for training, styles and prediction.

An image is turned as its EXIF orientation says, alpha lies over white, 16 bits are scaled to 8, and of an animation the
first frame is taken.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from densecl.data.decode import UNREADABLE, Location, orientation, unreadable
from densecl.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # looked for in folders
_DEEP = 65535  # the largest value of 16 bits


class Photo(NamedTuple):
    """An image, and a note on what was left out of it."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    note: str  # such as "first of 12 frames"; empty when all of the file is there


def read_rgb(path: Location, *, upright: bool = True) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB; `upright=False` leaves its pixels as they are stored.

    Raises:
        DataError: the file is missing, damaged, no image, or holds values that are no colours.
    """
    try:
        with Image.open(path) as image:
            return _pixels(image, path, upright)
    except UNREADABLE as error:
        raise unreadable("image", path, error) from error


def read_photo(path: Location) -> Photo:
    """Decode an image file that a person hands in, silently; errors as `read_rgb`."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # of large images and of odd metadata
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph with previews
            return Photo(_pixels(image, path, upright=True), f"first of {frames} frames" if frames > 1 else "")
    except UNREADABLE as error:
        raise unreadable("image", path, error) from error


def find_photos(places: Iterable[Location]) -> list[Path]:
    """List image files, each once: those named, and the images of a named folder (not below it) in order of names.

    Raises:
        DataError: a place does not exist, or a folder holds no image.
    """
    photos: dict[Path, Path] = {}
    for place in map(Path, places):
        files = [place]
        if place.is_dir():
            try:
                entries = sorted(place.iterdir())
            except OSError as error:
                raise DataError(f"the folder {place} cannot be read: {error.strerror}") from error
            files = [e for e in entries if e.suffix.lower() in SUFFIXES and not e.name.startswith(".") and e.is_file()]
            if not files:
                raise DataError(f"the folder {place} holds no image", f"looked for: {' '.join(SUFFIXES)}")
        elif not place.exists():
            raise DataError(f"image {place} is missing")
        for file in files:
            photos.setdefault(file.resolve(), file)
    return list(photos.values())


def _pixels(image: Image.Image, path: Location, upright: bool) -> np.ndarray:
    if upright and orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits: PIL itself would cut them off at 255
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > _DEEP:
            span = f"{values.min():g} to {values.max():g}"
            fault = f"image {path} holds values that are no shades of grey ({span})"
            raise DataError(fault, "save it with 8 or 16 bits a channel")
        image = Image.fromarray(np.rint(values / (_DEEP / 255)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
