"""Style images: two that are drawn, and those of the user, by path or by words of their names in the data folder."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from densecl.data.decode import read_rgb
from densecl.data.drawing import noise
from densecl.data.places import data_folder
from densecl.errors import DataError

FOLDERS = ("style", "styles")
SUFFIXES = (".jpg", ".jpeg", ".png")

_SIDE = 96  # of a drawn one, in pixels


def style_image(name: str, root: Path | None = None, size: int | None = None) -> np.ndarray:
    """Open a style image: (H, W, 3) uint8 RGB, its shorter side resized to `size` if that is given.

    It is `swirls` or `waves` (drawn); a file; or words of the name of an image in the folder `style` of the data folder
    (`root`, which may also be the folder of style images), such as `starry-night` for
    `van_gogh_starry_night_1889.jpg`. DataError if there is no such image, several, or it cannot be read.
    """
    pixels = DRAWN[name]() if name in DRAWN else read_rgb(_find(name, root))
    if size is None:
        return pixels
    height, width = pixels.shape[:2]
    scale = size / min(height, width)
    target = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(pixels).resize(target, Image.Resampling.BICUBIC, reducing_gap=None))


def _find(name: str, root: Path | None) -> Path:
    """The file of a style image that is not drawn."""
    file = Path(name).expanduser()
    if file.is_file():
        return file
    if file.suffix.lower() in SUFFIXES and len(file.parts) > 1:
        raise DataError(f"style image {name} is missing", "give the path of a JPEG or PNG")
    base = Path(root).expanduser() if root is not None else data_folder()
    # the folder itself only where it is named as one of styles: a data folder may hold images of any kind
    places = [*(base / folder for folder in FOLDERS), *([base] if base.name in FOLDERS else [])]
    entries = sorted(entry for place in places if place.is_dir() for entry in place.iterdir())
    images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")]
    words = _words(name)
    matching = [image for image in images if {*words} <= {*_words(image.name)}]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise DataError(
            f"style image '{name}' is one of several in {matching[0].parent}: {', '.join(f.name for f in matching)}",
            "use more words of its name, or its path",
        )
    known = ", ".join((*DRAWN, *(image.name for image in images)))
    raise DataError(
        f"no style image '{name}' in {places[0]}",
        f"put a JPEG or PNG there whose name has the words '{' '.join(words)}', or give a path; known: {known}",
    )


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def _swirls() -> np.ndarray:
    """Spirals of blue and yellow."""
    rng = np.random.default_rng(50)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float64)
    height = np.zeros((_SIDE, _SIDE))
    for right, down in rng.random((6, 2)) * _SIDE:
        x, y = columns - right, rows - down
        distance = np.hypot(x, y)
        height += np.sin(distance * 2 * np.pi / 9 + np.arctan2(y, x)) * np.exp(-((distance / 30) ** 2))
    return _mix(rng, (height / 2 + 0.5).clip(0, 1), (0.08, 0.15, 0.5), (0.9, 0.85, 0.35))


def _waves() -> np.ndarray:
    """Wavy bands of orange and black."""
    rng = np.random.default_rng(51)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float64)
    bent = rows + 6 * np.sin(columns * 2 * np.pi / 40) + 3 * np.sin(columns * 2 * np.pi / 17)
    return _mix(rng, (np.sin(bent * 2 * np.pi / 11) > 0).astype(float), (0.15, 0.1, 0.12), (0.95, 0.45, 0.1))


def _mix(rng: np.random.Generator, share: np.ndarray, low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
    """(H, W, 3) uint8 between two colours, with a little noise."""
    pixels = np.array(low) * (1 - share[..., None]) + np.array(high) * share[..., None]
    pixels += 0.03 * noise(rng, pixels.shape)
    return np.clip(np.floor(pixels * 255), 0, 255).astype(np.uint8)


DRAWN = {"swirls": _swirls, "waves": _waves}
