"""Drawn images of one to four equal marks: their shape, hue, texture or number is the class of an image.

So may be their size, and the brightness of the ground. Each property is drawn by itself, so none tells another: a
network that learns shapes has no use for hues. A mark lies in a quarter of the image of its own, turned and moved at
random.
"""

from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from densecl.data.drawing import CHUNK, SIZE, Fill, blocky, hsv_to_rgb, noise, outline
from densecl.data.drawn import DrawnVOC
from densecl.data.places import read_words
from densecl.errors import DataError

SHAPES = ("square", "bar", "cross", "triangle", "star", "half-disc", "ring", "disc")
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")  # at 0, 1/6, ... of the colour circle
TEXTURES = ("plain", "stripes", "broad_stripes", "checks", "broad_checks")
FILLS = (Fill(), Fill(4), Fill(8), Fill(4, checker=True), Fill(8, checker=True))
COUNTS = ("one", "two", "three", "four")
SIZES, GROUNDS = ("small", "middle", "large"), ("dark", "grey", "light")
CLASSES = MappingProxyType(
    {"shape": SHAPES, "hue": HUES, "texture": TEXTURES, "count": COUNTS, "size": SIZES, "ground": GROUNDS}
)
DRAWN = (0, 1, 2, 3, 7, 6)  # the number of a scene that decides each property
LABELS = "labels.txt"  # a line an image: its name, then the number of its class by each property, counted from 1
QUARTER = SIZE / 4  # pixels from the middle of a quarter to its sides


class MarkDrawing(NamedTuple):
    """The images of a split."""

    images: np.ndarray  # (N, 48, 48, 3) uint8
    masks: np.ndarray  # (N, 48, 48) uint8: 1 on a mark
    labels: np.ndarray  # (N, 6) uint8: classes in the order of `CLASSES`, from 1


class Marks(DrawnVOC):
    """The drawn marks, classified by one property: 2000 train, 250 val, 500 test images; val is for tuning."""

    name = "marks"
    version = "4c375e6e"
    class_names = ("mark",)
    truths = ("class",)
    seeds = MappingProxyType({"train": 41, "val": 42, "test": 43})

    by: Literal["shape", "hue", "texture", "count", "size", "ground"] = "shape"  # the property that is the class

    @property
    def image_classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The classes of the property."""
        return CLASSES[self.by]

    @property
    def code(self) -> str:
        """The property, on which the classes of the same files depend."""
        return self.by

    @property
    def content(self) -> str:
        """The version of the drawing, and the property."""
        return f"{super().content} {self.by}"

    @staticmethod
    def draw(n: int, seed: int) -> MarkDrawing:
        """Draw `n` images."""
        rng = np.random.default_rng(seed)
        scene, marks = rng.random((n, 11)), rng.random((n, len(COUNTS), 4))
        counts = map(len, CLASSES.values())
        labels = np.stack([1 + (scene[:, k] * n).astype(np.uint8) for k, n in zip(DRAWN, counts, strict=True)], axis=1)
        drawing = MarkDrawing(np.empty((n, SIZE, SIZE, 3), np.uint8), np.zeros((n, SIZE, SIZE), np.uint8), labels)
        background = blocky(rng, hsv_to_rgb(scene[:, 4], 0.25 * scene[:, 5], 0.25 + 0.5 * scene[:, 6]), 0.06)
        for start in range(0, n, CHUNK):
            part = slice(start, min(start + CHUNK, n))
            pixels = background(part)
            _draw_marks(scene[part], marks[part], labels[part], pixels, drawing.masks[part])
            pixels += 0.03 * noise(rng, pixels.shape)
            drawing.images[part] = np.clip(np.floor(pixels * 255), 0, 255)
        return drawing

    @classmethod
    def write_split(cls, root: Path, ids: list[str], drawing: MarkDrawing) -> None:
        """Add the classes of the images to the list of all."""
        with (root / LABELS).open("a", encoding="utf-8") as file:
            file.writelines(f"{i} {' '.join(map(str, row))}\n" for i, row in zip(ids, drawing.labels, strict=True))

    def truth_files(self, truth: str) -> list[str]:
        """The list of classes, for each image."""
        return [str(self.root / LABELS)] * len(self.ids)

    def read_truth(self, i: int) -> np.ndarray:
        """The class of image `i`."""
        number = self._numbers.get(self.ids[i], 0)
        if not 0 < number <= len(self.image_classes):
            raise DataError(f"{self.root / LABELS} has no {self.by} of {self.ids[i]}", self.hint())
        return np.full((1, *self.image_size(i)), number, np.float32)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        column = 1 + list(CLASSES).index(self.by)
        rows = (row for row in read_words(self.root / LABELS, self.hint()) if len(row) == 1 + len(CLASSES))
        return {row[0]: int(row[column]) for row in rows if row[column].isdecimal()}


def _draw_marks(
    scene: np.ndarray, marks: np.ndarray, labels: np.ndarray, pixels: np.ndarray, masks: np.ndarray
) -> None:
    """Draw the marks of B images into (B, 48, 48, 3) pixels and (B, 48, 48) masks.

    `scene`, (B, 11) uniform: shape, hue, texture, count, three of the background, radius, then three of the colour.
    `marks`, (B, 4, 4) of each quarter: its turn to hold a mark, angle, place (2).
    """
    colour = hsv_to_rgb((labels[:, 1] - 1.0) / len(HUES) + 0.06 * scene[:, 8] - 0.03, *(0.65 + 0.35 * scene[:, 9:].T))
    radius = (6.5 + 3 * scene[:, 7])[:, None, None]
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    turn = marks[:, :, 0].argsort(1, kind="stable").argsort(1, kind="stable")  # (B, 4): 0, 1, 2, 3 in some order
    for quarter in range(len(COUNTS)):
        angle, across, down = (marks[:, quarter, k, None, None] for k in (1, 2, 3))
        x = columns - QUARTER * (1 + 2 * (quarter % 2)) - (2 * across - 1) * (QUARTER - radius)
        y = rows - QUARTER * (1 + 2 * (quarter // 2)) - (2 * down - 1) * (QUARTER - radius)
        sine, cosine = np.sin(2 * np.pi * angle), np.cos(2 * np.pi * angle)
        x, y = x * cosine + y * sine, y * cosine - x * sine
        for number, name in enumerate(SHAPES, 1):
            which = np.flatnonzero((turn[:, quarter] < labels[:, 3]) & (labels[:, 0] == number))
            inside = outline(name, x[which], y[which], radius[which])
            light = np.zeros(inside.shape, bool)
            for texture, fill in enumerate(FILLS, 1):
                light |= (labels[which, 2] == texture)[:, None, None] & fill.light(x[which], y[which])
            image, row, column = np.nonzero(inside)
            shade = np.where(light[inside], 1.0, 0.35)[:, None]
            pixels[which[image], row, column] = colour[which[image]] * shade
            masks[which[image], row, column] = 1
