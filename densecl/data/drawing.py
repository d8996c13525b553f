"""What the drawn data sets share: reproducible noise, colours, borders, and folders that are whole or absent."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from PIL import Image

from densecl.data.palette import write_mask
from densecl.files import write_error

SIZE = 48  # side of every drawn image in pixels
MARK = "classes.txt"  # the file that tells a drawn folder from other VOC trees


class Drawing(NamedTuple):
    """The images of a split."""

    images: np.ndarray  # (N, 48, 48, 3) uint8
    masks: np.ndarray  # (N, 48, 48) uint8: 0 background, 1.. classes, 255 void


class Frame(NamedTuple):
    """An object's own axes: pixels from its centre along them, (K, 48, 48) each, and its radius (K, 1, 1)."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly normal numbers of variance 1: sums of four uniform ones, exact on every machine."""
    draws = rng.random((*shape, 4))
    return (((draws[..., 0] + draws[..., 1]) + (draws[..., 2] + draws[..., 3])) - 2) * 3**0.5


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Colours of B hues, saturations and brightnesses in 0..1 (hue modulo 1): (B, 3) in 0..1, red, green, blue."""
    # each channel is full for a third of the circle around its own hue and falls off linearly (Smith 1978)
    sector = (hue[:, None] * 6 + np.array([5.0, 3.0, 1.0])) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def frame(things: np.ndarray) -> Frame:
    """The axes of K objects.

    Args:
        things: (K, 4) uniform numbers: radius (0.2 to 0.34 of the side), angle, centre (2, 0.15 to 0.85 of the side).
    """
    radius, angle, *centre = (things[:, k, None, None] for k in range(4))  # each (K, 1, 1)
    radius, angle = (0.2 + 0.14 * radius) * SIZE, 2 * np.pi * angle
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    right, down = columns - (0.15 + 0.7 * centre[0]) * SIZE, rows - (0.15 + 0.7 * centre[1]) * SIZE
    return Frame(right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle), radius)


def border(instances: np.ndarray) -> np.ndarray:
    """(B, H, W) bool: the pixels just outside each object, on whatever the object meets there.

    Args:
        instances: (B, H, W) uint8, 0 background, higher numbers lie in front.
    """
    found = np.zeros(instances.shape, bool)
    for axis in (1, 2):
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        after = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        found[before] |= instances[before] < instances[after]
        found[after] |= instances[after] < instances[before]
    return found


def find_tree(places: Iterable[Path], class_names: Iterable[str]) -> Path | None:
    """The first of some folders that `write_tree` made with these classes; None when there is none."""
    names = "".join(f"{name}\n" for name in class_names)
    marked = (place for place in places if (place / MARK).is_file())
    return next((place for place in marked if (place / MARK).read_text(encoding="utf-8") == names), None)


def write_whole(root: Path, fill: Callable[[Path], None]) -> Path:
    """Make a folder, unless it is there; it is whole or absent, however many processes ask.

    Args:
        root: the folder. It is filled beside its place and renamed, under a lock.
        fill: writes the content into the empty folder it is given.

    Returns:
        `root`.

    Raises:
        RunError: it cannot be written.
    """
    if root.is_dir():
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.parent / f".{root.name}.lock"):
            if not root.is_dir():
                temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
                try:
                    fill(temporary)
                    temporary.chmod(0o755)
                    temporary.rename(root)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise write_error(root, error) from error
    return root


def write_tree(root: Path, drawings: Iterable[tuple[str, Drawing]], class_names: Iterable[str]) -> None:
    """Write the splits `train`, `val` and `test` in VOC layout below `root`, an empty folder.

    Args:
        root: the folder.
        drawings: name and images of each split.
        class_names: listed in `MARK`.
    """
    images, masks, lists = root / "JPEGImages", root / "SegmentationClass", root / "ImageSets" / "Segmentation"
    for made in (images, masks, lists):
        made.mkdir(parents=True)
    trainval: list[str] = []
    for split, drawing in drawings:
        ids = [f"{split}_{i:04d}" for i in range(len(drawing.images))]
        for i, name in enumerate(ids):
            # light compression: half the time, and the files are small
            Image.fromarray(drawing.images[i]).save(f"{images}{os.sep}{name}.png", compress_level=1)
            write_mask(drawing.masks[i], f"{masks}{os.sep}{name}.png")
        _write_list(lists / f"{split}.txt", ids)
        trainval += ids if split != "test" else []
    _write_list(lists / "trainval.txt", trainval)
    _write_list(root / MARK, class_names)


def _write_list(path: Path, names: Iterable[str]) -> None:
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
