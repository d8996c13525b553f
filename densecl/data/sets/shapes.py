"""The embedded data set: small drawings of 20 kinds of object, made from a seed and read back like any VOC tree.

A class is one of 5 hues and one of 4 shapes, so no class is told apart by colour or by outline alone. An image has 1
to 3 objects on a varied background, later ones cover earlier ones, and half of the images have a grey object that
counts as background. Every object is surrounded by one pixel of void, as in VOC.
"""

from types import MappingProxyType

import numpy as np

from densecl.data.drawing import Canvas, Drawing, Fill, Things, blocky, compose, hsv_to_rgb
from densecl.data.drawn import DrawnVOC

HUES = ("red", "lime", "green", "blue", "purple")  # at 0, 1/5, ... of the colour circle
SHAPES = ("disc", "cross", "triangle", "ring")
# Class c is hue ORDER[c - 1] // 4 and shape ORDER[c - 1] % 4: shuffled once, so that each step of a stream mixes both.
ORDER = (3, 8, 12, 13, 14, 16, 10, 15, 1, 6, 0, 7, 4, 18, 5, 19, 17, 2, 9, 11)
FILLS = (Fill(), Fill(8), Fill(8, checker=True))


class Shapes(DrawnVOC):
    """The embedded data set, read by the VOC reader: 2000 train, 250 val, 500 test images; val is for tuning."""

    name = "shapes"
    version = "8d327f03"
    class_names = tuple(f"{HUES[pair // 4]} {SHAPES[pair % 4]}" for pair in ORDER)
    seeds = MappingProxyType({"train": 1, "val": 2, "test": 3})

    @staticmethod
    def draw(n: int, seed: int) -> Drawing:
        """Draw `n` images: a grey object that stays background, then one to three coloured ones."""
        rng = np.random.default_rng(seed)
        scene = rng.random((n, 4))  # hue, saturation and brightness of the background; number of objects
        things = rng.random((n, 4, 9))  # slot 0: the grey object; slots 1..3: objects
        present = np.stack(
            [things[:, 0, 8] < 0.5, scene[:, 3] >= 0, scene[:, 3] >= 0.5, scene[:, 3] >= 0.9], axis=1
        )  # (N, 4)
        colours = hsv_to_rgb(scene[:, 0], 0.3 * scene[:, 1], 0.25 + 0.5 * scene[:, 2])
        return compose(rng, things, present, range(4), blocky(rng, colours, 0.08), _draw_slot, grain=0.04)


def _draw_slot(numbers: np.ndarray, present: np.ndarray, slot: int, canvas: Canvas) -> None:
    """Draw object `slot`; numbers (B, 9): radius, angle, centre (2), hue, saturation, brightness, fill, kind."""
    kind, tone, depth, light = numbers[:, 8], numbers[:, 4], numbers[:, 5], numbers[:, 6]
    if slot == 0:
        # the grey object is there when its kind is below 0.5, so twice that number is uniform again
        label, shape = np.zeros(len(numbers), np.intp), (kind * 8).astype(np.intp) % 4
        colour = hsv_to_rgb(tone, 0.15 * depth, 0.1 + 0.85 * light)
    else:
        label = 1 + (kind * 20).astype(np.intp)
        pair = np.array(ORDER)[label - 1]
        shape = pair % 4
        colour = hsv_to_rgb(pair // 4 / 5 + 0.1 * tone - 0.05, 0.6 + 0.4 * depth, 0.6 + 0.4 * light)
    fill = (numbers[:, 7] * len(FILLS)).astype(np.intp)
    canvas.paint(slot, Things(numbers, present, shape, colour, label, fill), SHAPES, FILLS, dark=0.6)
