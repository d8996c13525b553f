"""Drawn images whose colours can be told from their grey values: what the embedded task sequences colour.

The outline of an object gives its hue, the brightness of the background gives its own, so a network that sees only
luminance can do much better than grey, and nothing else can.
"""

from types import MappingProxyType

import numpy as np

from densecl.data.drawing import Canvas, Drawing, Things, blocky, compose, hsv_to_rgb
from densecl.data.drawn import DrawnVOC

OUTLINES = ("disc", "triangle", "ring", "square", "cross")
HUES = (0.0, 0.33, 0.62, 0.14, 0.83)  # of each class, give or take 0.03 of the circle


class Tints(DrawnVOC):
    """The drawn images to colour, with masks of their objects: 2000 train, 250 val, 500 test; val is for tuning."""

    name = "tints"
    version = "4577c100"
    class_names = OUTLINES
    seeds = MappingProxyType({"train": 21, "val": 22, "test": 23})

    @staticmethod
    def draw(n: int, seed: int) -> Drawing:
        """Draw `n` images of one to three objects."""
        rng = np.random.default_rng(seed)
        scene = rng.random((n, 2))  # brightness of the background; number of objects
        things = rng.random((n, 3, 8))
        present = np.stack([scene[:, 1] >= 0, scene[:, 1] >= 0.4, scene[:, 1] >= 0.8], axis=1)  # (N, 3)
        brightness = 0.2 + 0.7 * scene[:, 0]
        hue = np.where(brightness < 0.5, 0.6, 0.09)  # dark ones are blue, light ones orange
        colours = hsv_to_rgb(hue, np.full_like(hue, 0.3), brightness)
        return compose(rng, things, present, (1, 2, 3), blocky(rng, colours, 0.05), _draw_slot, grain=0.03)


def _draw_slot(numbers: np.ndarray, present: np.ndarray, slot: int, canvas: Canvas) -> None:
    """Draw object `slot`; numbers (B, 8): radius, angle, centre (2), hue, saturation, brightness, class."""
    figure = (numbers[:, 7] * len(OUTLINES)).astype(np.intp)
    hue = np.array(HUES)[figure] + 0.06 * numbers[:, 4] - 0.03
    colour = hsv_to_rgb(hue, 0.6 + 0.4 * numbers[:, 5], 0.6 + 0.4 * numbers[:, 6])
    canvas.paint(slot, Things(numbers, present, figure, colour, figure + 1), OUTLINES)
