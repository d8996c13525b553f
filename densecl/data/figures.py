"""Drawn images of four figures on gradients: the second label set of the embedded task sequences.

Nothing but the outline tells the classes apart: squares, bars, half-discs and stars come in any colour and in four
fills. None of the outlines occurs in `shapes`. An image has 1 to 3 objects, up to three lines behind them, and one
pixel of void around each object.
"""

from types import MappingProxyType

import numpy as np

from densecl.data.drawing import SIZE, Canvas, Drawing, compose, frame, hsv_to_rgb
from densecl.data.drawn import DrawnVOC

CLASS_NAMES = ("square", "bar", "half-disc", "star")


def draw(n: int, seed: int) -> Drawing:
    """Draw `n` images; as in `shapes.draw`, only `Generator.random` is called.

    Args:
        n: how many.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    scene = rng.random((n, 9))  # hue, saturation, brightness of both ends; angle; number of lines; of objects
    lines = rng.random((n, 3, 4))  # angle, point (2), brightness
    things = rng.random((n, 3, 9))
    present = np.stack([scene[:, 8] >= 0, scene[:, 8] >= 0.5, scene[:, 8] >= 0.9], axis=1)  # (N, 3)

    def background(part: slice) -> np.ndarray:
        pixels = _gradient(scene[part])  # (B, 48, 48, 3)
        for k in range(3):
            _draw_line(lines[part, k], scene[part, 7] >= (k + 1) / 4, pixels)
        return pixels

    return compose(rng, things, present, (1, 2, 3), background, _draw_slot, grain=0.03)


def outline(figure: int, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The pixels of a figure.

    Args:
        figure: position in `CLASS_NAMES`.
        x: (B, H, W) pixels from the object's centre, along its own first axis.
        y: (B, H, W), along its second.
        radius: (B, 1, 1) pixels.

    Returns:
        (B, H, W) bool.
    """
    if CLASS_NAMES[figure] == "square":
        return np.maximum(np.abs(x), np.abs(y)) < 0.75 * radius
    if CLASS_NAMES[figure] == "bar":
        return (np.abs(x) < radius) & (np.abs(y) < 0.35 * radius)
    distance = x * x + y * y
    if CLASS_NAMES[figure] == "half-disc":
        return (distance < radius * radius) & (y > -0.1 * radius)
    # r < R (0.65 + 0.35 cos 5a); cos 5a is a polynomial of cos a = x / r
    distance = np.sqrt(distance)
    cosine = x / np.maximum(distance, 1e-9)
    square = cosine * cosine
    return distance < radius * (0.65 + 0.35 * cosine * ((16 * square - 20) * square + 5))


def _gradient(scene: np.ndarray) -> np.ndarray:
    """(B, 48, 48, 3) from one colour to another across the image, of (B, 7 or more) uniform numbers."""
    one, other = (
        hsv_to_rgb(scene[:, k], 0.1 + 0.4 * scene[:, k + 1], 0.3 + 0.6 * scene[:, k + 2])[:, None, None] for k in (0, 3)
    )
    angle = 2 * np.pi * scene[:, 6, None, None]
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] - SIZE / 2
    share = ((columns * np.cos(angle) + rows * np.sin(angle)) / SIZE + 0.5).clip(0, 1)[..., None]
    return one * (1 - share) + other * share


def _draw_line(lines: np.ndarray, active: np.ndarray, pixels: np.ndarray) -> None:
    """Draw a grey line through each of B images over what is there; `lines` (B, 4), `pixels` changed in place."""
    angle = np.pi * lines[:, 0, None, None]
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    right, down = columns - lines[:, 1, None, None] * SIZE, rows - lines[:, 2, None, None] * SIZE
    on = (np.abs(right * np.cos(angle) + down * np.sin(angle)) < 0.8) & active[:, None, None]
    pixels[on] = np.broadcast_to(lines[:, 3, None, None], on.shape)[on][:, None]


def _draw_slot(things: np.ndarray, active: np.ndarray, slot: int, canvas: Canvas) -> None:
    """Draw object `slot` (from 1) of B images over what is there; as `shapes` does.

    Args:
        things: (B, 9) uniform numbers: radius, angle, centre (2), hue, saturation, brightness, fill, class.
        active: (B,) bool, which images have this object.
        slot: its number.
        canvas: drawn on.
    """
    figure = (things[:, 8] * len(CLASS_NAMES)).astype(np.intp)
    colour = hsv_to_rgb(things[:, 4], 0.3 + 0.7 * things[:, 5], 0.5 + 0.5 * things[:, 6])
    fill = (things[:, 7] * 4).astype(np.intp)  # plain, narrow stripes, wide stripes, checker
    for kind in range(len(CLASS_NAMES)):
        which = np.flatnonzero(active & (figure == kind))
        x, y, radius = frame(things[which, :4])  # (K, 48, 48)
        inside = outline(kind, x, y, radius)
        pattern = fill[which, None, None]
        light = (pattern == 0) | ((pattern == 1) & (x % 4 < 2)) | ((pattern == 2) & (x % 9 < 4.5))
        light |= (pattern == 3) & ((x % 8 < 4) ^ (y % 8 < 4))
        canvas.paint(slot, which, inside, colour, kind + 1, light, 0.4)


class Figures(DrawnVOC):
    """The drawn figures, read by the VOC reader: 2000 train, 250 val, 500 test images; val is for tuning."""

    NAME = "figures"
    VERSION = "3c4765f6"
    CLASSES = CLASS_NAMES
    SPLITS = MappingProxyType({"train": (2000, 11), "val": (250, 12), "test": (500, 13)})
    draw = staticmethod(draw)
