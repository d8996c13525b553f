"""Images and masks from files.

An image of any kind is read as RGB of 8 bits, as a person sees it, for training, styles and prediction: turned as its
EXIF orientation says, alpha over white, 16 bits scaled to 8, of an animation the first frame.

Masks are palette or grey PNGs. Nearly all of them are 8-bit, not interlaced and with unfiltered rows (as PIL, libpng
and the VOC tools write palettes), and then the pixels are zlib's output as it stands: that case is read directly, which
takes half the time of the general decoder. Every other file, and every file that looks wrong, goes through PIL.
"""

import contextlib
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

from densecl.errors import DataError, SettingError
from densecl.palette import palette

Location = str | os.PathLike[str]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # looked for in folders
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its words on damaged files are printed, beside ours
_DEEP = 65535  # the largest value of 16 bits
_JPEG_SIZE_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PNG = b"\x89PNG\r\n\x1a\n"
# Raised by PIL for files that are missing, cut, or no images: UnidentifiedImageError is an OSError, a bad PNG chunk a
# SyntaxError.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_indices(path: Location) -> np.ndarray:
    """Decode a mask to its ids, palette indices or grey values: (H, W) uint8, contiguous and writable."""
    with _named("mask", path):
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path would cost as much as the read
            pixels = _plain_png(file.read(), path)
        if pixels is not None:
            return pixels
        with opened("mask", path) as image:
            # PIL stretches grey values of fewer than 8 bits to 0..255; only the raw mode tells, not the mode "L"
            raw_mode = image.tile[0][3] if image.tile else image.mode
            stretched = image.mode == "L" and isinstance(raw_mode, str) and raw_mode != "L"
            if image.mode in ("P", "L") and not stretched:
                return np.array(image)
            kind = "stretched grey" if stretched else image.mode
    raise DataError(
        f"mask {os.fspath(path)} is an image of kind {kind}, not of class ids",
        "a mask is an 8-bit palette or grey PNG whose values are class ids",
    )


def read_values(path: Location, *, colours: bool) -> np.ndarray:
    """Decode a mask of any kind to numbers, (H, W) int64, exactly: ids of up to 32 bits, or colours 0xRRGGBB.

    DataError for a mask with shades of transparency or of floating-point numbers, and, without `colours`, in colour.
    """
    with opened("mask", path) as image:
        raw_mode = image.tile[0][3] if image.tile else image.mode
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") and np.asarray(image)[..., -1].min() < 255:
            raise DataError(f"mask {os.fspath(path)} is transparent in places", "save it without an alpha channel")
        if ";16" in str(raw_mode) and not image.mode.startswith("I"):  # PIL would cut them to 8
            raise DataError(f"mask {os.fspath(path)} has 16 bits a colour", "save it with 8 bits a channel")
        if not colours and image.mode in ("P", "1", "I", "I;16", "I;16B", "I;16L"):
            return np.array(image).astype(np.int64)
        if not colours and image.mode == "L" and raw_mode in ("L;2", "L;4"):  # PIL has stretched them to 0..255
            return np.array(image).astype(np.int64) // {"L;2": 85, "L;4": 17}[raw_mode]
        if image.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV") or (colours and image.mode.startswith("I")):
            raise DataError(f"mask {os.fspath(path)} is an image of kind {image.mode}", "save it as PNG")
        pixels = np.array(image.convert("RGB")).astype(np.int64)
    if not colours:
        if (pixels != pixels[..., :1]).any():
            raise DataError(
                f"mask {os.fspath(path)} is in colour, not of class ids", "name the colour of each class: `colours`"
            )
        return pixels[..., 0]
    return (pixels[..., 0] << 16) + (pixels[..., 1] << 8) + pixels[..., 2]


def write_mask(mask: np.ndarray, path: Location) -> None:
    """Write labels (H, W) uint8 as a palette PNG in VOC's colours."""
    image = Image.fromarray(mask)
    image.putpalette(palette())
    image.save(path, format="PNG", compress_level=1)


class Photo(NamedTuple):
    """An image, and a note on what was left out of it."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    note: str  # such as "first of 12 frames"; empty when all of the file is there


def read_rgb(path: Location, *, upright: bool | None = True) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    `upright=False` leaves its pixels as they are stored, None refuses an image that has to be turned.
    """
    with opened("image", path) as image:
        return _pixels(image, path, upright)


def read_photo(path: Location) -> Photo:
    """Decode an image file that a person hands in, silently; errors as `read_rgb`."""
    with warnings.catch_warnings(), opened("image", path) as image:
        warnings.simplefilter("ignore")  # of large images and of odd metadata
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph with previews
        return Photo(_pixels(image, path, upright=True), f"first of {frames} frames" if frames > 1 else "")


def find_photos(places: Iterable[Location]) -> list[Path]:
    """List image files, each once: those named, and the images of a named folder (not below it) in order of names.

    DataError if a place does not exist, or a folder holds no image.
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


def image_size(path: Location, *, upright: bool | None = False) -> tuple[int, int]:
    """(height, width) of an image in pixels, from its header; for `upright` see `read_rgb`."""
    with _named("image", path):
        if not upright:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                header = file.read(2048)
            size = _header_size(header) if upright is False or b"Exif" not in header else None
            if size is not None:  # a fifth of the time of PIL, for each image of a class index
                check_pixels("image", path, *size)
                return size
        with opened("image", path) as image:
            lying = _turn(image, path, upright) >= 5
            return (image.width, image.height) if lying else (image.height, image.width)


def orientation(image: Image.Image) -> int:
    """EXIF's number of how the camera was held, 1 to 8; 1 (upright) where an image says nothing readable."""
    if image.format == "TIFF":  # turned by PIL itself
        return 1
    try:
        number = image.getexif().get(0x0112)
    except UNREADABLE:
        return 1
    return number if isinstance(number, int) and 1 <= number <= 8 else 1


def present(mask: np.ndarray) -> np.ndarray:
    """(256,) bool: the ids that occur in a mask, (H, W) uint8."""
    flat, occurs = mask.reshape(-1), np.zeros(256, dtype=bool)
    occurs[flat[:1]] = True
    occurs[flat[1:][flat[1:] != flat[:-1]]] = True  # labels come in long runs: few pixels differ from the one before
    return occurs


def check_pixels(kind: str, path: Location, height: int, width: int) -> None:
    """Refuse an image or mask of more pixels than are read, before anything of it is unpacked."""
    if height * width > max_pixels():
        fault = f"{kind} {os.fspath(path)} has more than the {max_pixels():,} pixels that are read"
        raise DataError(fault, "it is damaged, or set DENSECL_MAX_PIXELS to more")


def max_pixels() -> int:
    """The largest number of pixels of an image or mask that is read: `DENSECL_MAX_PIXELS`, by default PIL's limit."""
    text = os.environ.get("DENSECL_MAX_PIXELS") or "178956970"
    if not text.isdecimal():
        raise SettingError(f"DENSECL_MAX_PIXELS is '{text}'", "give it the largest number of pixels of an image")
    return int(text)


@contextlib.contextmanager
def opened(kind: str, path: Location) -> Iterator[ImageFile.ImageFile]:
    """An image file; what is wrong with it is a DataError that names it."""
    with _named(kind, path):
        own = Image.MAX_IMAGE_PIXELS  # PIL refuses twice that, and warns from there on
        if own is not None and own < max_pixels():
            Image.MAX_IMAGE_PIXELS = max_pixels()
        with Image.open(path) as image:
            check_pixels(kind, path, image.height, image.width)
            yield image


@contextlib.contextmanager
def _named(kind: str, path: Location) -> Iterator[None]:
    """Turn what is wrong with a file into a DataError that names it."""
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{kind} {os.fspath(path)} does not fit into the memory", "make it smaller") from error
    except Image.DecompressionBombError:
        check_pixels(kind, path, 2 * max_pixels(), 1)
    except FileNotFoundError as error:
        raise DataError(f"{kind} {os.fspath(path)} is missing") from error
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image"
        raise DataError(f"{kind} {os.fspath(path)} cannot be read: {reason}", "fetch the file again") from error


def _turn(image: Image.Image, path: Location, upright: bool | None) -> int:
    """The orientation that is to be undone."""
    number = 1 if upright is False else orientation(image)
    if upright is None and number != 1:
        fault = f"image {os.fspath(path)} is to be turned by its EXIF orientation, and its mask may be turned or not"
        raise DataError(
            fault, "save it as it is seen, without the orientation, or say `upright` in a class of your own"
        )
    return number


def _pixels(image: Image.Image, path: Location, upright: bool | None) -> np.ndarray:
    if _turn(image, path, upright) != 1:
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


def _plain_png(data: bytes, path: Location) -> np.ndarray | None:
    """Ids (H, W) of an 8-bit grey or palette PNG, not interlaced, with unfiltered rows; None for any other file."""
    # data[24:29]: bit depth, colour type, compression, filter method, interlacing
    if data[:8] != _PNG or data[24:29] not in (b"\x08\x00\x00\x00\x00", b"\x08\x03\x00\x00\x00"):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    check_pixels("mask", path, height, width)
    parts, position = [], 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        elif kind == b"IEND":
            break
        position += length + 12
    unpack, size = zlib.decompressobj(), height * (width + 1)
    try:
        raw = unpack.decompress(b"".join(parts), size + 1)  # no more than the header promises
    except zlib.error:
        return None
    if len(raw) != size or not unpack.eof:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)  # each row starts with its filter's number
    return None if rows[:, 0].any() else rows[:, 1:].copy()


def _header_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) from the first bytes of a PNG or JPEG; None when they do not tell."""
    if data[:8] == _PNG and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA or marker == 0xFF:  # fill bytes, or pixels before any size: for PIL
            return None
        if marker in _JPEG_SIZE_MARKERS:
            return struct.unpack_from(">HH", data, position + 5)
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None
