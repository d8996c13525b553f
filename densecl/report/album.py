"""Pictures inside the page: checked, reduced, each stored once, and no more of them than the page may weigh."""

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

LIMIT = 1_000_000  # bytes of all pictures, before base64 adds a third
LARGEST = 20_000_000  # pixels of a file that is opened at all
WIDEST = 960  # pixels kept of a picture's width

Fault = Callable[[str], None]  # is told what cannot be shown


class Picture(NamedTuple):
    """A picture of the page's album."""

    symbol: str  # its id in the page
    width: int
    height: int
    sharp: bool  # its pixels are labels, which must not be blended
    source: str  # its content as a data URI

    @property
    def shown(self) -> int:
        """Its width in the page: small ones are enlarged by a whole number."""
        return self.width * max(1, min(4, 640 // self.width))

    @property
    def crisp(self) -> bool:
        """True if pixels are shown as squares: labels, and enlarged pictures."""
        return self.sharp or self.shown > self.width


class Shown(NamedTuple):
    """A picture where the page shows it."""

    label: str
    picture: Picture
    alt: str  # what is on it, in words


@dataclass
class Album:
    """The pictures of one page."""

    limit: int = LIMIT
    size: int = 0
    left_out: int = 0
    kept: dict[str, Picture] = field(default_factory=dict)  # by hash of the content

    def add(self, image: Image.Image | None, clear: Sequence[int] = ()) -> Picture | None:
        """Put a picture into the page; None if there is none, or the page is full.

        Label maps (mode P) and pictures with transparency stay exact; photographs are compressed. Labels that are
        `clear` are transparent.
        """
        if image is None:
            return None
        sharp = image.mode in ("P", "RGBA")
        digest = hashlib.sha256(repr((image.mode, image.size, clear)).encode() + image.tobytes()).hexdigest()
        if digest in self.kept:
            return self.kept[digest]
        if image.width > WIDEST:
            height = max(1, round(image.height * WIDEST / image.width))
            image = image.resize((WIDEST, height), Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        if image.mode == "P":
            small, used = _fewest_colours(image)
            alpha = bytes(0 if label in clear else 255 for label in used)
            small.save(stream, "PNG", optimize=True, **({"transparency": alpha} if clear else {}))
        elif sharp:
            image.save(stream, "PNG", optimize=True)
        else:
            image.save(stream, "WEBP", quality=82, method=6)
        content = stream.getvalue()
        if self.size + len(content) > self.limit:
            self.left_out += 1
            return None
        self.size += len(content)
        source = f"data:image/{'png' if sharp else 'webp'};base64,{base64.b64encode(content).decode()}"
        self.kept[digest] = Picture(f"picture-{len(self.kept)}", image.width, image.height, sharp, source)
        return self.kept[digest]

    def add_file(self, path: Path, fault: Fault) -> Picture | None:
        """Put a picture of a file into the page; None if it is missing, unreadable, or the page is full."""
        image = read_picture(path, fault)
        return self.add(image)


def read_picture(path: Path, fault: Fault) -> Image.Image | None:
    """A picture as P or RGB; None if it is missing or cannot be read, which `fault` is told."""
    try:
        if not path.is_file():
            return None
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.load()
            return image.copy() if image.mode == "P" else image.convert("RGB")
    except UnidentifiedImageError:
        fault(f"{path} is no picture")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        fault(f"{path} cannot be read: {' '.join(str(error).split())}")
    return None


def _fewest_colours(image: Image.Image) -> tuple[Image.Image, list[int]]:
    """The picture with a palette of the labels it uses, which takes fewer bits per pixel; and these labels."""
    used, indices = np.unique(np.asarray(image), return_inverse=True)
    colours = np.zeros((256, 3), np.uint8)
    own = np.frombuffer(bytes(image.getpalette() or ()), np.uint8).reshape(-1, 3)
    colours[: len(own)] = own
    small = Image.fromarray(indices.reshape(image.height, image.width).astype(np.uint8), mode="P")
    small.putpalette(colours[used].tobytes())
    return small, used.tolist()
