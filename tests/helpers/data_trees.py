"""Small data sets on disk, for the tests of readers."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from densecl.data import data_set, names
from densecl.data.drawn import DrawnVOC

LISTS = Path("ImageSets", "Segmentation")


def presence(image_classes: Iterable[Iterable[int]]) -> np.ndarray:
    """(n, 256) bool: the ids that each image holds."""
    return np.array([[label in held for label in range(256)] for held in map(set, image_classes)])


def noise_image(path: Path, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Write an RGB image of (height, width) and return it; lossless if `path` ends with .png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def palette_mask(path: Path, labels: np.ndarray, **options: object) -> None:
    """Write labels as a palette PNG whose colours differ from its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette([(7 * k + 13) % 256 for k in range(768)])
    image.save(path, **options)


def voc_tree(root: Path, **splits: int) -> Path:
    """A VOC tree below `root`, `splits` images a list; masks hold 0, 1, 2 and 255. Returns the VOC2012 folder."""
    folder = root / "VOCdevkit" / "VOC2012"
    (folder / LISTS).mkdir(parents=True)
    for name, count in (splits or {"train": 3, "val": 2}).items():
        ids = [f"2007_{name}_{i}" for i in range(count)]
        (folder / LISTS / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))
        for k, i in enumerate(ids):
            noise_image(folder / "JPEGImages" / f"{i}.jpg", (6, 8), seed=k)
            labels = np.zeros((6, 8), np.uint8)
            labels[1:3], labels[3], labels[4, 2:5] = 1, 255, 2
            palette_mask(folder / "SegmentationClass" / f"{i}.png", labels)
    return folder


def camvid_tree(root: Path, prefix: str = "CamVid/") -> Path:
    """A CamVid tree below `root` with two images a split. The CamVid folder."""
    folder = root / "CamVid"
    for split in ("train", "val", "test"):
        lines = []
        for k in range(2):
            noise_image(folder / split / f"{split}{k}.png", (5, 12), seed=k)
            mask = np.arange(60, dtype=np.uint8).reshape(5, 12) % 12  # ids 0..11 in every row
            (folder / f"{split}annot").mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / f"{split}annot" / f"{split}{k}.png")
            lines.append(f"{prefix}{split}/{split}{k}.png {prefix}{split}annot/{split}{k}.png\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def class_tree(root: Path, split: str, classes: Iterable[str], images: int) -> Path:
    """Folders of classes with so many images each, in `root` or a split of it. The data folder."""
    for name in classes:
        for k in range(images):
            noise_image(root / split / name / f"{k}.png", (6, 8), seed=k)
    return root


def flowers_tree(root: Path) -> Path:
    """Flowers-102 with six images of three classes: 1 and 4 to train, 2 to validate, 3, 5 and 6 to test."""
    for k in range(1, 7):
        noise_image(root / "jpg" / f"image_{k:05d}.jpg", (6, 8), seed=k)
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 3, 2, 3]], np.uint8)})
    savemat(root / "setid.mat", {"trnid": np.array([[1, 4]]), "valid": np.array([[2]]), "tstid": np.array([[3, 5, 6]])})
    return root


def few_drawn(patch: pytest.MonkeyPatch, train: int, val: int, test: int) -> None:
    """Let the drawn data sets have so few images."""
    for drawn in drawn_sets():
        patch.setattr(drawn, "counts", {"train": train, "val": val, "test": test})


def drawn_sets() -> list[type[DrawnVOC]]:
    """All drawn data sets."""
    return [cls for name in names() if issubclass(cls := data_set(name), DrawnVOC)]


def square(number: int, category: int, x: int, y: int, side: int, **more: object) -> dict:
    """A square of `side` pixels with its upper left corner at (x, y), as an annotation of COCO."""
    polygon = [x, y, x + side, y, x + side, y + side, x, y + side]
    return {"id": number, "image_id": 1, "category_id": category, "iscrowd": 0, "segmentation": [polygon], **more}
