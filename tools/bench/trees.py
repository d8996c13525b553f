"""A VOC tree to read from where there is none: drawn photographs of VOC's size, in the user's cache."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from densecl.data import data_set
from densecl.data.decode import write_mask
from densecl.data.drawn import write_whole
from densecl.data.places import cache_folder
from densecl.errors import DataError

CLASSES = 20


class Drawn(NamedTuple):
    """Images of each split, and their height and width, by default that of most of VOC's."""

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

    Raises:
        DataError: the folder `data` that was named holds no VOC tree.
    """
    try:
        return Tree(data_set("voc").locate(data), "")
    except DataError:
        if data is not None:
            raise
    height, width = drawn.size
    root = cache_folder() / "bench" / f"voc-{drawn.train}-{drawn.val}-{width}x{height}"
    note = (
        f"no VOC tree was found: {drawn.train + drawn.val} drawn images of {width}x{height} (--data names a real one)"
    )
    return Tree(write_whole(root, lambda folder: _write(folder, drawn)), note)


def draw(rng: np.random.Generator, size: tuple[int, int], labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 and its mask (H, W) uint8: boxes of some classes, surrounded by void.

    The smooth background has grain, so that decoding costs as much as of photographs.
    """
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC)).astype(np.float32)
    mask = np.zeros(size, np.uint8)
    for label in labels:
        (top, left), (height, width) = (rng.uniform(low, low + 0.4, 2) * size for low in (0.1, 0.2))
        y, x, y2, x2 = map(int, (top, left, top + height, left + width))
        mask[y - 1 : y2 + 1, x - 1 : x2 + 1] = 255
        mask[y:y2, x:x2] = label
        pixels[y:y2, x:x2] = 0.5 * pixels[y:y2, x:x2] + 0.5 * rng.uniform(0, 255, 3)
    return np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8), mask


def _write(folder: Path, drawn: Drawn) -> None:
    """Images of one to three classes, so that all of them occur."""
    images, masks, lists = (folder / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))
    for place in (images, masks, lists):
        place.mkdir(parents=True)
    for seed, (split, count) in enumerate((("train", drawn.train), ("val", drawn.val))):
        rng = np.random.default_rng(seed)
        ids = [f"{split}_{i:04d}" for i in range(count)]
        for i, name in enumerate(ids):
            others = rng.integers(1, CLASSES + 1, rng.integers(0, 3)).tolist()
            image, mask = draw(rng, drawn.size, [*others, 1 + i % CLASSES])  # the last one is never hidden
            Image.fromarray(image).save(images / f"{name}.jpg", quality=90)
            write_mask(mask, str(masks / f"{name}.png"))
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
