"""Names beside the marks of a figure, so that none lies on another. Places are in pixels, 72 to the inch."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from densecl.report.svg import GRID

SIZE = 8.0  # height of letters
WIDTH = 0.56  # of a letter, as a share of its height
LINE = 1.3  # of a line, as a share of the letters' height
MARK = 4.5  # half the side of a marker
RINGS = (8, 16, 28, 42, 58, 76, 96, 120)  # distances at which a name is tried
TIED = 12  # from this distance on a line ties the name to its point


class Box(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """The area that both share."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        tall = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(wide, 0.0) * max(tall, 0.0)


def width_of(name: str, size: float = SIZE) -> float:
    """The width of a name, or a little more."""
    return size * WIDTH * len(name)


def at_the_end(plot: Any, names: Sequence[str], ends: Sequence[tuple[float, float]], looks: Sequence[Any]) -> None:
    """Names right of the axes, each at the height of its line's end or as near as there is room.

    `ends` are the last points of the lines in the axes' values, `looks` pairs of colour and marker.
    """
    low, high = plot.get_ylim()
    tall = plot.bbox.height
    size = min(SIZE, tall / max(len(names), 1) / LINE)
    gap = (high - low) * LINE * size / tall
    heights = spread([y for _, y in ends], gap, (low, high))
    pixel = 1 / plot.bbox.width
    line = {"transform": plot.get_yaxis_transform(), "clip_on": False, "linewidth": 0.7}
    right = plot.get_xlim()
    for name, (x, y), height, (colour, marker) in zip(names, ends, heights, looks, strict=True):
        start = (x - right[0]) / (right[1] - right[0])
        plot.plot([start, 1 + 14 * pixel], [y, height], color=colour, alpha=0.5, **line)
        plot.plot([1 + 18 * pixel], [height], color=colour, marker=marker, markersize=0.5 * size, **line)
        plot.text(1 + 25 * pixel, height, name, transform=plot.get_yaxis_transform(), va="center", fontsize=size)
    plot.set_ylim(low, high)


def beside(plot: Any, names: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Names near their points, inside the figure's field, and on no other name or mark as far as there is room."""
    places = plot.transData.transform(points)
    field = Box(plot.bbox.x0 + 2, plot.bbox.y0 + 2, plot.figure.bbox.x1 - 2, plot.bbox.y1)
    marks = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in places]
    boxes = placed(names, places, marks, field)
    for (x, y), box in zip(places, boxes, strict=True):
        near = min(max(x, box.left), box.right), min(max(y, box.bottom), box.top)
        if np.hypot(near[0] - x, near[1] - y) > TIED:
            ends = plot.transData.inverted().transform([(x, y), near])
            plot.plot(*ends.T, color=GRID, linewidth=0.6, zorder=1, scalex=False, scaley=False)
    for name, box in zip(names, boxes, strict=True):
        at = plot.transData.inverted().transform((box.left, (box.bottom + box.top) / 2))
        plot.text(*at, name, va="center", fontsize=SIZE)


def placed(
    names: Sequence[str], places: Sequence[Sequence[float]], marks: Sequence[Box], field: Box, size: float = SIZE
) -> list[Box]:
    """A rectangle for each name: of those around its place, the nearest that covers nothing and lies in the field.

    Where none does, the one that covers least. Names of the most crowded places are given theirs first.
    """
    at = np.asarray(places, float).reshape(-1, 2)
    crowd = [float(np.sum(np.hypot(*(at - own).T) < 2 * RINGS[3])) for own in at]
    boxes: dict[int, Box] = {}
    for index in sorted(range(len(names)), key=lambda index: (-crowd[index], index)):
        taken = [*boxes.values(), *marks]
        best, least = None, float("inf")
        for box in _around(at[index], width_of(names[index], size), LINE * size):
            outside = (box.right - box.left) * (box.top - box.bottom) - box.overlap(field)
            cost = outside + sum(box.overlap(other) for other in taken)
            if cost < least:
                best, least = box, cost
            if cost < 1e-6:
                break
        assert best is not None  # there is a place around every point
        boxes[index] = best
    return [boxes[index] for index in range(len(names))]


def _around(place: np.ndarray, wide: float, tall: float) -> Iterator[Box]:
    """Rectangles around a place, near ones first, on the right before the left, above and below."""
    x, y = place
    for ring in RINGS:
        for rise in (0.0, 1.0, -1.0, 2.0, -2.0):
            for left in (x + ring, x - ring - wide):
                middle = y + rise * (ring + tall / 4) * 0.5
                yield Box(left, middle - tall / 2, left + wide, middle + tall / 2)
        for bottom in (y + ring - 2, y - ring + 2 - tall):
            for shift in (0.5, 0.25, 0.75, 0.0, 1.0):
                yield Box(x - shift * wide, bottom, x - shift * wide + wide, bottom + tall)


def spread(positions: Sequence[float], gap: float, inside: tuple[float, float] | None = None) -> list[float]:
    """The positions, moved as little as possible so that any two are `gap` apart, in the same order.

    Neighbours that are too close form a block that is centred on the mean of its members (isotonic regression). None
    leaves the range `inside`, if it has room for all.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    flat = isotonic_regression([positions[index] - rank * gap for rank, index in enumerate(order)]).x if order else []
    if inside is not None:  # the best within bounds is the best without, clipped
        flat = np.clip(flat, inside[0], max(inside[0], inside[1] - gap * (len(flat) - 1)))
    result = [0.0] * len(positions)
    for rank, index in enumerate(order):
        result[index] = flat[rank] + rank * gap
    return result
