"""Drawn images whose colours can be told from their grey values: what the embedded task sequences colour.

The outline of an object gives its hue, the brightness of the background gives its own, so a network that sees only
luminance can do much better than grey, and nothing else can.
"""

from pathlib import Path

import numpy as np

from densecl.data import shapes
from densecl.data.dataset import VOID
from densecl.data.drawing import SIZE, Drawing, border, find_tree, frame, hsv_to_rgb, noise, write_tree, write_whole
from densecl.data.places import cache_folder
from densecl.data.voc import VOC

VERSION = "4577c100"  # the first digits of the hash of all pixels, as in `shapes`
SPLITS = {"train": (2000, 21), "val": (250, 22), "test": (500, 23)}  # name -> (images, seed)
CLASS_NAMES = ("disc", "triangle", "ring", "square", "cross")
HUES = (0.0, 0.33, 0.62, 0.14, 0.83)  # of each class, give or take 0.03 of the circle

_BLOCK = 8  # pixels of a background block
_CHUNK = 125  # images drawn at once: bounds the memory, does not change the pixels


def hint() -> str:
    """How to get it."""
    return "draw it with `densecl data make tints`"


def draw(n: int, seed: int) -> Drawing:
    """Draw `n` images; as in `shapes.draw`, only `Generator.random` is called.

    Args:
        n: how many.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    scene = rng.random((n, 2))  # brightness of the background; number of objects
    things = rng.random((n, 3, 8))
    blocks = 0.05 * noise(rng, (n, SIZE // _BLOCK, SIZE // _BLOCK))
    present = np.stack([scene[:, 1] >= 0, scene[:, 1] >= 0.4, scene[:, 1] >= 0.8], axis=1)  # (N, 3)
    drawing = Drawing(np.empty((n, SIZE, SIZE, 3), np.uint8), np.empty((n, SIZE, SIZE), np.uint8))
    for start in range(0, n, _CHUNK):
        part = slice(start, min(start + _CHUNK, n))
        brightness = 0.2 + 0.7 * scene[part, 0]
        hue = np.where(brightness < 0.5, 0.6, 0.09)  # dark ones are blue, light ones orange
        colour = hsv_to_rgb(hue, np.full_like(hue, 0.3), brightness)
        pixels = colour[:, None, None] + blocks[part].repeat(_BLOCK, 1).repeat(_BLOCK, 2)[..., None]  # (B, 48, 48, 3)
        instances = np.zeros(pixels.shape[:3], np.uint8)
        masks = drawing.masks[part]
        masks[:] = 0
        for slot in range(3):
            _draw_slot(things[part, slot], present[part, slot], slot + 1, pixels, instances, masks)
        pixels += 0.03 * noise(rng, pixels.shape)
        drawing.images[part] = np.clip(np.floor(pixels * 255), 0, 255)
        masks[border(instances)] = VOID
    return drawing


def outline(figure: int, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The pixels of a figure, see `shapes.outline`; `figure` is a position in `CLASS_NAMES`."""
    name = CLASS_NAMES[figure]
    if name == "square":
        return np.maximum(np.abs(x), np.abs(y)) < 0.75 * radius
    return shapes.outline(shapes.SHAPES.index(name), x, y, radius)


def folder(parent: Path | None = None) -> Path:
    """Where the data set lies below `parent` (default: the cache), drawn or not."""
    return (parent or cache_folder()) / f"tints-{VERSION}"


def find(root: Path) -> Path | None:
    """The drawn data set in or at `root`; None when there is none."""
    return find_tree((folder(root), root), CLASS_NAMES)


def write(root: Path | None = None) -> Path:
    """Draw the data set in VOC layout, unless it is there; as `shapes.write`."""
    return write_whole(folder() if root is None else Path(root), _write_tree)


class Tints(VOC):
    """The drawn images to colour, with masks of their objects: 2000 train, 250 val, 500 test; val is for tuning."""

    def __init__(self, root: Path, split: str):
        """Read a folder that `write` made.

        Args:
            root: that folder.
            split: train, val, test or trainval.
        """
        super().__init__(
            root, split, name="tints", class_names=CLASS_NAMES, advice=f"delete the folder {root}; it is drawn again"
        )

    @property
    def content(self) -> str:
        """The version of the drawing, which pins the pixels."""
        return f"tints {VERSION} {self.split}"


def _draw_slot(
    things: np.ndarray, active: np.ndarray, slot: int, pixels: np.ndarray, instances: np.ndarray, masks: np.ndarray
) -> None:
    """Draw object `slot` (from 1) of B images over what is there; as `shapes` does.

    Args:
        things: (B, 8) uniform numbers: radius, angle, centre (2), hue, saturation, brightness, class.
        active: (B,) bool, which images have this object.
        slot: its number.
        pixels: (B, 48, 48, 3) float64, changed in place.
        instances: (B, 48, 48) uint8, number of the object seen at a pixel, changed in place.
        masks: (B, 48, 48) uint8 labels, changed in place.
    """
    figure = (things[:, 7] * len(CLASS_NAMES)).astype(np.intp)
    hue = np.array(HUES)[figure] + 0.06 * things[:, 4] - 0.03
    colour = hsv_to_rgb(hue, 0.6 + 0.4 * things[:, 5], 0.6 + 0.4 * things[:, 6])
    for kind in range(len(CLASS_NAMES)):
        which = np.flatnonzero(active & (figure == kind))
        image, row, column = np.nonzero(outline(kind, *frame(things[which, :4])))
        pixels[which[image], row, column] = colour[which[image]]
        instances[which[image], row, column] = slot
        masks[which[image], row, column] = kind + 1


def _write_tree(root: Path) -> None:
    """Draw all splits into `root`, an empty folder."""
    write_tree(root, ((split, draw(n, seed)) for split, (n, seed) in SPLITS.items()), CLASS_NAMES)
