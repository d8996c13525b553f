"""Labels drawn over their photograph, with a legend below."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densecl.palette import palette

SMALLEST = 320  # pixels of the longer side: smaller photographs are enlarged, by whole factors
OPACITY = 0.55  # of a class's colour
LETTERS = (12, 96)  # least and largest height of the legend's letters, in pixels
INK, PAPER, RIM = (32, 32, 32), (255, 255, 255), (150, 150, 150)


class LegendEntry(NamedTuple):
    """A class in a legend: its colour, None where the photograph is left unchanged, and its text."""

    colour: tuple[int, int, int] | None
    text: str


def colours() -> np.ndarray:
    """(256, 3) uint8: VOC's colour of each label."""
    return np.frombuffer(palette(), np.uint8).reshape(256, 3)


def shares(labels: np.ndarray) -> dict[int, float]:
    """The share of each label among the pixels (H, W), the largest first."""
    counts = np.bincount(labels.reshape(-1), minlength=256)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda label: (-counts[label], label))
    return {label: float(counts[label] / labels.size) for label in order}


def percent(share: float) -> str:
    """`34.1 %`, or `< 0.1 %` where that would round to nothing."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def overlay(pixels: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Image.Image:
    """The photograph with classes in VOC's colours, their outlines, and a legend of what is there.

    The photograph (H, W, 3) is left unchanged at label 0, which is background or a class of another step.
    """
    factor = max(1, -(-SMALLEST // max(labels.shape)))
    labels = labels.repeat(factor, 0).repeat(factor, 1)
    photo = Image.fromarray(pixels).resize(labels.shape[::-1], Image.Resampling.BICUBIC)
    painted = colours()[labels]
    result = np.array(Image.blend(photo, Image.fromarray(painted), OPACITY))
    result[labels == 0] = np.asarray(photo)[labels == 0]
    edge = outline(labels) & (labels != 0)
    result[edge] = painted[edge]
    entries = [
        LegendEntry(tuple(colours()[label].tolist()) if label else None, f"{names[label]} {percent(share)}")
        for label, share in shares(labels).items()
    ]
    return with_legend(Image.fromarray(result), entries)


def outline(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels with a neighbour, above, below or beside, of another label."""
    around = np.pad(labels, 1, mode="edge")
    neighbours = (around[1:-1, 2:], around[1:-1, :-2], around[2:, 1:-1], around[:-2, 1:-1])
    return np.any([labels != neighbour for neighbour in neighbours], axis=0)


def with_legend(picture: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """The picture with a strip of colours and words below, in as many lines as its width needs."""
    height = min(max(round(max(picture.size) / 45), LETTERS[0]), LETTERS[1])
    font = ImageFont.load_default(height)
    gap, line = height // 2, round(1.7 * height)
    widths = [height + gap + round(font.getlength(entry.text)) + 2 * gap for entry in entries]  # square, text, space
    width = max([picture.width, SMALLEST // 2, *(wide + gap for wide in widths)])
    places, x, y = [], gap, picture.height + gap
    for wide in widths:
        if x > gap and x + wide > width:
            x, y = gap, y + line
        places.append((x, y))
        x += wide
    canvas = Image.new("RGB", (width, y + line), PAPER)
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for entry, (left, top) in zip(entries, places, strict=True):
        square = (left, top, left + height, top + height)
        draw.rectangle(square, fill=entry.colour, outline=RIM)
        draw.text((left + height + gap, top + height / 2), entry.text, fill=INK, font=font, anchor="lm")
    return canvas
