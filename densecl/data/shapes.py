"""The embedded data set: small drawings of 20 kinds of object, made from a seed and read back like any VOC tree.

A class is one of 5 hues and one of 4 shapes, so no class is told apart by colour or by outline alone. An image has 1
to 3 objects on a varied background, later ones cover earlier ones, and half of the images have a grey object that
counts as background. Every object is surrounded by one pixel of void, as in VOC.
"""

from types import MappingProxyType

import numpy as np

from densecl.data.drawing import BLOCK, Canvas, Drawing, blocky, compose, frame, hsv_to_rgb
from densecl.data.drawn import DrawnVOC

HUES = ("red", "lime", "green", "blue", "purple")  # at 0, 1/5, ... of the colour circle
SHAPES = ("disc", "cross", "triangle", "ring")
# Class c is hue ORDER[c - 1] // 4 and shape ORDER[c - 1] % 4: shuffled once, so that each step of a stream mixes both.
ORDER = (3, 8, 12, 13, 14, 16, 10, 15, 1, 6, 0, 7, 4, 18, 5, 19, 17, 2, 9, 11)
CLASS_NAMES = tuple(f"{HUES[pair // 4]} {SHAPES[pair % 4]}" for pair in ORDER)


def draw(n: int, seed: int) -> Drawing:
    """Draw `n` images.

    Only `Generator.random` is called, in an order that depends on nothing else: the same pixels on every machine.

    Args:
        n: how many.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    scene = rng.random((n, 4))  # hue, saturation and brightness of the background; number of objects
    things = rng.random((n, 4, 9))  # slot 0: the grey object; slots 1..3: objects
    active = np.stack(
        [things[:, 0, 8] < 0.5, scene[:, 3] >= 0, scene[:, 3] >= 0.5, scene[:, 3] >= 0.9], axis=1
    )  # (N, 4)
    colours = hsv_to_rgb(scene[:, 0], 0.3 * scene[:, 1], 0.25 + 0.5 * scene[:, 2])
    return compose(rng, things, active, range(4), blocky(rng, colours, 0.08), _draw_slot, grain=0.04)


def outline(shape: int, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The pixels of a shape.

    Args:
        shape: position in `SHAPES`.
        x: (B, H, W) pixels from the object's centre, along its own first axis.
        y: (B, H, W), along its second.
        radius: (B, 1, 1) pixels.

    Returns:
        (B, H, W) bool.
    """
    if SHAPES[shape] == "cross":
        far, near = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return (far < radius) & (near < 0.33 * radius)
    if SHAPES[shape] == "triangle":
        return (y < 0.7 * radius) & (y > 2 * np.abs(x) - radius)
    distance = x * x + y * y
    inside = distance < radius * radius
    return inside & (distance > 0.25 * radius * radius) if SHAPES[shape] == "ring" else inside


def _draw_slot(things: np.ndarray, active: np.ndarray, slot: int, canvas: Canvas) -> None:
    """Draw object `slot` of B images over what is there; slot 0 is the grey object, which stays background.

    Args:
        things: (B, 9) uniform numbers: radius, angle, centre (2), hue, saturation, brightness, fill, kind.
        active: (B,) bool, which images have this object.
        slot: its number.
        canvas: drawn on.
    """
    grey = slot == 0
    label = np.zeros(len(things), np.intp) if grey else 1 + (things[:, 8] * 20).astype(np.intp)
    # a grey object is there when number 8 is below 0.5, so twice that number is uniform again
    shape = (things[:, 8] * 8).astype(np.intp) % 4 if grey else np.array(ORDER)[label - 1] % 4
    hue = things[:, 4] if grey else np.array(ORDER)[label - 1] // 4 / 5 + 0.1 * things[:, 4] - 0.05
    saturation = 0.15 * things[:, 5] if grey else 0.6 + 0.4 * things[:, 5]
    value = 0.1 + 0.85 * things[:, 6] if grey else 0.6 + 0.4 * things[:, 6]
    colour = hsv_to_rgb(hue, saturation, value)
    fill = (things[:, 7] * 3).astype(np.intp)  # plain, stripes, checker
    for kind in range(len(SHAPES)):
        which = np.flatnonzero(active & (shape == kind))
        x, y, radius = frame(things[which, :4])  # (K, 48, 48)
        inside = outline(kind, x, y, radius)
        light_x, light_y = x % BLOCK < BLOCK / 2, y % BLOCK < BLOCK / 2
        pattern = fill[which, None, None]
        light = (pattern == 0) | ((pattern == 1) & light_x) | ((pattern == 2) & (light_x ^ light_y))
        canvas.paint(slot, which, inside, colour, label, light, 0.6)


class Shapes(DrawnVOC):
    """The embedded data set, read by the VOC reader: 2000 train, 250 val, 500 test images; val is for tuning."""

    NAME = "shapes"
    VERSION = "8d327f03"
    CLASSES = CLASS_NAMES
    SPLITS = MappingProxyType({"train": (2000, 1), "val": (250, 2), "test": (500, 3)})
    draw = staticmethod(draw)
