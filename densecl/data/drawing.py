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

from densecl.data.dataset import VOID
from densecl.data.indexed_png import write_mask
from densecl.files import write_error

SIZE = 48  # side of every drawn image in pixels
BLOCK = 8  # side of a background block, and a period of stripes, in pixels
CHUNK = 125  # images drawn at once: bounds the memory, does not change the pixels
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


class Canvas(NamedTuple):
    """B images being drawn."""

    pixels: np.ndarray  # (B, 48, 48, 3) float64, 0..1
    instances: np.ndarray  # (B, 48, 48) uint8, number of the object seen at a pixel, 0 of none
    masks: np.ndarray  # (B, 48, 48) uint8 labels

    def paint(
        self,
        slot: int,
        which: np.ndarray,
        inside: np.ndarray,
        colours: np.ndarray,
        labels: np.ndarray | int,
        light: np.ndarray | None = None,
        dark: float = 1.0,
    ) -> None:
        """Paint object `slot` of some images over what is there.

        Args:
            slot: the object's number.
            which: (K,) positions of the images.
            inside: (K, 48, 48) bool, where the object is.
            colours: (B, 3) of every image's object.
            labels: (B,) of every image's object, or one for all.
            light: (K, 48, 48) bool, where it has its full colour; None: everywhere.
            dark: what the colour is multiplied by elsewhere.
        """
        image, row, column = np.nonzero(inside)
        colour = colours[which[image]]
        if light is not None:
            colour = colour * np.where(light[inside], 1.0, dark)[:, None]
        self.pixels[which[image], row, column] = colour
        self.instances[which[image], row, column] = slot
        self.masks[which[image], row, column] = labels if isinstance(labels, int) else labels[which[image]]


def compose(
    rng: np.random.Generator,
    things: np.ndarray,
    present: np.ndarray,
    slots: Iterable[int],
    background: Callable[[slice], np.ndarray],
    draw_slot: Callable[[np.ndarray, np.ndarray, int, Canvas], None],
    grain: float,
) -> Drawing:
    """Draw N images of S objects each, later ones over earlier ones, with a pixel of void around each.

    Args:
        rng: draws the grain, after everything else.
        things: (N, S, ...) uniform numbers of each object.
        present: (N, S) bool, which objects are there.
        slots: number of each object.
        background: the pixels (B, 48, 48, 3) of a part of the images before any object.
        draw_slot: draws one object of each image, from its numbers (B, ...), whether it is there (B,), and its slot.
        grain: standard deviation of the noise over all.
    """
    n = len(things)
    drawing = Drawing(np.empty((n, SIZE, SIZE, 3), np.uint8), np.empty((n, SIZE, SIZE), np.uint8))
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        pixels, masks = background(part), drawing.masks[part]
        masks[:] = 0
        canvas = Canvas(pixels, np.zeros(masks.shape, np.uint8), masks)
        for k, slot in enumerate(slots):
            draw_slot(things[part, k], present[part, k], slot, canvas)
        pixels += grain * noise(rng, pixels.shape)
        drawing.images[part] = np.clip(np.floor(pixels * 255), 0, 255)
        masks[border(canvas.instances)] = VOID
    return drawing


def blocky(rng: np.random.Generator, colours: np.ndarray, contrast: float) -> Callable[[slice], np.ndarray]:
    """Backgrounds for `compose`: a colour an image, (N, 3), in blocks whose brightness varies by `contrast`."""
    shades = contrast * noise(rng, (len(colours), SIZE // BLOCK, SIZE // BLOCK))
    return lambda part: colours[part, None, None] + shades[part].repeat(BLOCK, 1).repeat(BLOCK, 2)[..., None]


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
