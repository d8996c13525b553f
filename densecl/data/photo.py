"""Photographs of any kind as RGB of 8 bits: what a person may hand in, unlike the files of a data set."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from densecl.data.decode import UNREADABLE, Location, unreadable
from densecl.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # looked for in folders
_DEEP = 65535  # the largest value of 16 bits


class Photo(NamedTuple):
    """An image, and what was left out of it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        note: such as "first of 12 frames"; empty when all of the file is there.
    """

    pixels: np.ndarray
    note: str


def read_photo(path: Location) -> Photo:
    """Decode an image file as a person sees it.

    Turned as its EXIF orientation says, alpha over white, 16 bits scaled to 8, the first frame of an animation.

    Raises:
        DataError: the file is missing, damaged, no image, or holds values that are no colours.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # of large images and of odd metadata
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph with previews
            pixels = np.array(_opaque(_of_8_bits(ImageOps.exif_transpose(image), path)))
    except UNREADABLE as error:
        raise unreadable("image", path, error) from error
    return Photo(pixels, f"first of {frames} frames" if frames > 1 else "")


def find_photos(places: Iterable[Location]) -> list[Path]:
    """The files that are meant: each file itself, and of a folder the images in it, in order of their names.

    Folders below a folder are not looked into. A file that is named twice is meant once.

    Raises:
        DataError: a place does not exist, or a folder holds no image.
    """
    found: dict[Path, Path] = {}
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
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _of_8_bits(image: Image.Image, path: Location) -> Image.Image:
    """Grey values of 16 bits scaled: PIL itself would cut them off at 255."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > _DEEP:
        raise DataError(
            f"image {path} holds values that are no shades of grey ({values.min():g} to {values.max():g})",
            "save it with 8 or 16 bits a channel",
        )
    return Image.fromarray(np.rint(values / (_DEEP / 255)).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, with what is transparent over white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
