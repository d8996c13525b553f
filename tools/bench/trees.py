"""A VOC tree to read from where there is none: drawn photographs of VOC's size, in the user's cache."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from densecl.data import locate
from densecl.data.decode import write_mask
from densecl.data.drawing import border
from densecl.data.drawn import write_whole
from densecl.data.places import cache_folder
from densecl.errors import DataError

CLASSES = 20


class Drawn(NamedTuple):
    """What is drawn: images of each split, and their height and width, by default that of most of VOC's."""

    train: int = 96
    val: int = 24
    size: tuple[int, int] = (375, 500)


USUAL = Drawn()


class Tree(NamedTuple):
    """A VOC tree, and what the table says of it."""

    root: Path
    note: str


def find_tree(data: Path | None, drawn: Drawn = USUAL) -> Tree:
    """The VOC tree in the usual places, or a drawn one where there is none.

    Args:
        data: a folder that the user named; then it must be there.
        drawn: what is drawn.

    Raises:
        DataError: the folder that was named holds no VOC tree.
    """
    try:
        return Tree(locate("voc", data), "")
    except DataError:
        if data is not None:
            raise
    height, width = drawn.size
    root = cache_folder() / "bench" / f"voc-{drawn.train}-{drawn.val}-{width}x{height}"
    count = drawn.train + drawn.val
    note = f"no VOC tree was found: {count} drawn images of {width}x{height} (name a real one with --data)"
    return Tree(write_whole(root, lambda folder: _write(folder, drawn)), note)


def draw(rng: np.random.Generator, size: tuple[int, int], labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Ellipses of some classes, surrounded by void, on a smooth background with grain, as costly to decode as photos.

    Returns:
        Image (H, W, 3) uint8 and mask (H, W) uint8.
    """
    height, width = size
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    instances = np.zeros(size, np.uint8)
    mask = np.zeros(size, np.uint8)
    for number, label in enumerate(labels, 1):
        y, x = rng.uniform(0.2, 0.8, 2) * size
        a, b = rng.uniform(0.12, 0.3, 2) * size
        inside = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1
        instances[inside], mask[inside] = number, label
        pixels[inside] = 0.5 * pixels[inside] + 0.5 * rng.uniform(0, 255, 3)
    pixels += rng.normal(0, 8, pixels.shape)
    mask[border(instances[None])[0]] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def _write(folder: Path, drawn: Drawn) -> None:
    """Images of one to three classes; the first goes through all of them."""
    places = [folder / "JPEGImages", folder / "SegmentationClass", folder / "ImageSets" / "Segmentation"]
    for place in places:
        place.mkdir(parents=True)
    for seed, (split, count) in enumerate((("train", drawn.train), ("val", drawn.val))):
        rng = np.random.default_rng(seed)
        ids = [f"{split}_{i:04d}" for i in range(count)]
        for i, name in enumerate(ids):
            others = rng.integers(1, CLASSES + 1, rng.integers(0, 3)).tolist()
            image, mask = draw(rng, drawn.size, [1 + i % CLASSES, *others])
            Image.fromarray(image).save(f"{places[0]}{os.sep}{name}.jpg", quality=90)
            write_mask(mask, f"{places[1]}{os.sep}{name}.png")
        (places[2] / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
