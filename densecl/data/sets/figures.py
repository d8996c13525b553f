"""Drawn images of four figures on gradients: the second label set of the embedded task sequences.

Nothing but the outline tells the classes apart: squares, bars, half-discs and stars come in any colour and in four
fills. None of the outlines occurs in `shapes`. An image has 1 to 3 objects, up to three lines behind them, and one
pixel of void around each object.
"""

from types import MappingProxyType

import numpy as np

from densecl.data.drawing import SIZE, Canvas, Drawing, Fill, Things, compose, hsv_to_rgb
from densecl.data.drawn import DrawnVOC

FIGURES = ("square", "bar", "half-disc", "star")
FILLS = (Fill(), Fill(4), Fill(9), Fill(8, checker=True))


class Figures(DrawnVOC):
    """The drawn figures, read by the VOC reader: 2000 train, 250 val, 500 test images; val is for tuning."""

    name = "figures"
    version = "3c4765f6"
    class_names = FIGURES
    seeds = MappingProxyType({"train": 11, "val": 12, "test": 13})

    @staticmethod
    def draw(n: int, seed: int) -> Drawing:
        """Draw `n` images: gradient, lines, one to three figures."""
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


def _gradient(scene: np.ndarray) -> np.ndarray:
    """(B, 48, 48, 3) from one colour to another across the image, of (B, 7 or more) uniform numbers."""
    start, end = (
        hsv_to_rgb(scene[:, k], 0.1 + 0.4 * scene[:, k + 1], 0.3 + 0.6 * scene[:, k + 2])[:, None, None] for k in (0, 3)
    )
    angle = 2 * np.pi * scene[:, 6, None, None]
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] - SIZE / 2
    share = ((columns * np.cos(angle) + rows * np.sin(angle)) / SIZE + 0.5).clip(0, 1)[..., None]
    return start * (1 - share) + end * share


def _draw_line(lines: np.ndarray, present: np.ndarray, pixels: np.ndarray) -> None:
    """Draw a grey line through each of B images over what is there; `lines` (B, 4), `pixels` changed in place."""
    angle = np.pi * lines[:, 0, None, None]
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    right, down = columns - lines[:, 1, None, None] * SIZE, rows - lines[:, 2, None, None] * SIZE
    on = (np.abs(right * np.cos(angle) + down * np.sin(angle)) < 0.8) & present[:, None, None]
    pixels[on] = np.broadcast_to(lines[:, 3, None, None], on.shape)[on][:, None]


def _draw_slot(numbers: np.ndarray, present: np.ndarray, slot: int, canvas: Canvas) -> None:
    """Draw object `slot`; numbers (B, 9): radius, angle, centre (2), hue, saturation, brightness, fill, class."""
    figure = (numbers[:, 8] * len(FIGURES)).astype(np.intp)
    colour = hsv_to_rgb(numbers[:, 4], 0.3 + 0.7 * numbers[:, 5], 0.5 + 0.5 * numbers[:, 6])
    fill = (numbers[:, 7] * len(FILLS)).astype(np.intp)
    canvas.paint(slot, Things(numbers, present, figure, colour, figure + 1, fill), FIGURES, FILLS, dark=0.4)
