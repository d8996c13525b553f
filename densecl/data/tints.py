"""Drawn images whose colours can be told from their grey values: what the embedded task sequences colour.

The outline of an object gives its hue, the brightness of the background gives its own, so a network that sees only
luminance can do much better than grey, and nothing else can.
"""

from types import MappingProxyType

import numpy as np

from densecl.data import shapes
from densecl.data.drawing import Canvas, Drawing, blocky, compose, frame, hsv_to_rgb
from densecl.data.drawn import DrawnVOC

CLASS_NAMES = ("disc", "triangle", "ring", "square", "cross")
HUES = (0.0, 0.33, 0.62, 0.14, 0.83)  # of each class, give or take 0.03 of the circle


def draw(n: int, seed: int) -> Drawing:
    """Draw `n` images; as in `shapes.draw`, only `Generator.random` is called.

    Args:
        n: how many.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    scene = rng.random((n, 2))  # brightness of the background; number of objects
    things = rng.random((n, 3, 8))
    present = np.stack([scene[:, 1] >= 0, scene[:, 1] >= 0.4, scene[:, 1] >= 0.8], axis=1)  # (N, 3)
    brightness = 0.2 + 0.7 * scene[:, 0]
    hue = np.where(brightness < 0.5, 0.6, 0.09)  # dark ones are blue, light ones orange
    colours = hsv_to_rgb(hue, np.full_like(hue, 0.3), brightness)
    return compose(rng, things, present, (1, 2, 3), blocky(rng, colours, 0.05), _draw_slot, grain=0.03)


def outline(figure: int, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The pixels of a figure, see `shapes.outline`; `figure` is a position in `CLASS_NAMES`."""
    name = CLASS_NAMES[figure]
    if name == "square":
        return np.maximum(np.abs(x), np.abs(y)) < 0.75 * radius
    return shapes.outline(shapes.SHAPES.index(name), x, y, radius)


def _draw_slot(things: np.ndarray, active: np.ndarray, slot: int, canvas: Canvas) -> None:
    """Draw object `slot` (from 1) of B images over what is there; as `shapes` does.

    Args:
        things: (B, 8) uniform numbers: radius, angle, centre (2), hue, saturation, brightness, class.
        active: (B,) bool, which images have this object.
        slot: its number.
        canvas: drawn on.
    """
    figure = (things[:, 7] * len(CLASS_NAMES)).astype(np.intp)
    hue = np.array(HUES)[figure] + 0.06 * things[:, 4] - 0.03
    colour = hsv_to_rgb(hue, 0.6 + 0.4 * things[:, 5], 0.6 + 0.4 * things[:, 6])
    for kind in range(len(CLASS_NAMES)):
        which = np.flatnonzero(active & (figure == kind))
        canvas.paint(slot, which, outline(kind, *frame(things[which, :4])), colour, kind + 1)


class Tints(DrawnVOC):
    """The drawn images to colour, with masks of their objects: 2000 train, 250 val, 500 test; val is for tuning."""

    NAME = "tints"
    VERSION = "4577c100"
    CLASSES = CLASS_NAMES
    SPLITS = MappingProxyType({"train": (2000, 21), "val": (250, 22), "test": (500, 23)})
    draw = staticmethod(draw)
