"""The figures of a report, as inline SVG. They take plain values; the values are chosen elsewhere."""

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.optimize import isotonic_regression

from densecl.report.style import COLOURS, GAIN, GREY, LOSS, Style
from densecl.report.svg import GRID, SETTINGS, inline

DPI = 72  # of SVG: an inch is 72 of its units, which the page shows as pixels
LONGEST = 22  # letters of a class's name
LETTER = 0.055  # height of a letter, as a share of the axis
DODGE = 0.035  # steps between neighbouring series, so that their intervals do not hide each other


class Series(NamedTuple):
    """A line: `y[k]` after step `x[k]`, with half its interval if there is one."""

    style: Style
    x: Sequence[float]
    y: Sequence[float]
    half: Sequence[float | None]


class Point(NamedTuple):
    """A point with half the interval of its height; its letter is written beside it."""

    style: Style
    x: float
    y: float
    half: float | None = None


class Bar(NamedTuple):
    """Parts of one row's bar, which add up; parts below 0 go the other way."""

    style: Style
    parts: Sequence[float]


class Axes(NamedTuple):
    """Labels of the axes, and a title."""

    x: str
    y: str
    title: str = ""


def lines(prefix: str, title: str, axes: Axes, series: Sequence[Series]) -> str:
    """Lines over steps; each ends in the letter of its row."""
    with _figure(6.4, 3.7) as figure:
        plot = _plot(figure, axes)
        for index, line in enumerate(series):
            shift = DODGE * (index - (len(series) - 1) / 2)
            colour, dash = COLOURS[line.style.colour], tuple(map(float, line.style.dash.split()))
            x = np.asarray(line.x, float) + (shift if len(line.x) > 1 else 0)
            plot.plot(x, line.y, marker=line.style.marker, color=colour, linestyle=(0, dash) if dash else "-")
            _bars(plot, x, line.y, line.half, colour)
        plot.set_ylim(*limits([(y, half) for line in series for y, half in zip(line.y, line.half, strict=True)]))
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        _letters_at_the_end(plot, series)
        return inline(figure, prefix, title)


def scatter(prefix: str, title: str, axes: Axes, points: Sequence[Point]) -> str:
    """Points, each with the letter of its row; an axis whose values span a factor of 20 is logarithmic."""
    with _figure(5.2, 3.5) as figure:
        plot = _plot(figure, axes)
        _markers(plot, points)
        values = [point.x for point in points]
        if min(values) > 0 and max(values) > 20 * min(values):
            plot.set_xscale("log")
            plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # not a formula of powers
            plot.xaxis.set_minor_formatter(NullFormatter())
        else:
            right = 1.1 * max(values) or 1
            plot.set_xlim(-0.03 * right if min(values) < 0.03 * right else 0, right)
        plot.set_ylim(*limits([(point.y, point.half) for point in points]))
        _letters_beside(plot, points)
        return inline(figure, prefix, title)


def agreement(prefix: str, title: str, axes: Axes, points: Sequence[Point]) -> str:
    """Measured against reported values, with the line on which both agree."""
    with _figure(5.2, 4.2) as figure:
        plot = _plot(figure, axes)
        ends = [value for point in points for value in (point.x, point.y)]
        low, high = max(0.0, min(ends) - 5), max(ends) + 5
        plot.plot([low, high], [low, high], color=GRID, linewidth=1, linestyle="--")
        _markers(plot, points)
        plot.set_xlim(low, high)
        plot.set_ylim(low, high)
        _letters_beside(plot, points)
        return inline(figure, prefix, title)


def heat_map(title: str, values: np.ndarray, names: Sequence[str], scale: float) -> str:
    """Loss (one colour) and gain (another) of each class after each step; a deeper colour is a larger amount.

    `values` (classes, steps): NaN is drawn in faint grey. `scale`: the amount that has full colour. Written as SVG
    directly: a page has a map for each row, and a figure of matplotlib takes half a second.
    """
    count, steps = values.shape
    tall, wide = (11.0 if count <= 40 else 446 / count), 17.0 if steps > 5 else 23.0  # pixels
    left = 6 + 4.6 * min(LONGEST, max(map(len, names)))
    bottom, right = tall * count, left + wide * steps
    cells = []
    for (row, step), value in np.ndenumerate(values):
        share = 0.16 if np.isnan(value) else min(1.0, abs(value) / scale)
        colour = GREY if np.isnan(value) else f"var(--s{COLOURS.index(LOSS if value > 0 else GAIN)})"
        if round(share, 2):
            place = f'x="{left + wide * step:g}" y="{tall * row:.4g}" width="{wide:g}" height="{tall:.4g}"'
            cells.append(f'<rect {place} fill="{colour}" fill-opacity="{share:.2f}"/>')
    texts = [
        (left - 4, tall * (row + 0.5) + 3, "end", name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")
        for row, name in list(enumerate(names))[:: max(1, -(-count // 40))]
    ]
    shown = range(0, steps, max(1, -(-steps // 12)))
    texts += [(left + wide * (step + 0.5), bottom + 10, "middle", f"{step}") for step in shown]
    texts += [((left + right) / 2, bottom + 21, "middle", "after step")]
    written = "".join(
        f'<text x="{x:g}" y="{y:.4g}" text-anchor="{anchor}">{html.escape(text)}</text>' for x, y, anchor, text in texts
    )
    frame = f'<rect x="{left:g}" width="{wide * steps:g}" height="{bottom:.4g}" fill="none" stroke="var(--grid)"/>'
    size, name = f"{right + 30:g} {bottom + 25:.4g}", html.escape(title)
    opening = f'<svg viewBox="-1 -1 {size}" style="--width:{right + 30:.0f}px" role="img" aria-label="{name}">'
    labels = f'<g font-size="8" fill="currentColor">{written}</g>'
    return f"{opening}<title>{name}</title>{''.join(cells)}{frame}{labels}</svg>"


def stacked(prefix: str, title: str, axes: Axes, bars: Sequence[Bar], names: Sequence[str]) -> str:
    """A horizontal bar for each row, by the row's letter, in parts with a colour each; a line marks their sum."""
    with _figure(6.4, 1.1 + 0.34 * len(bars)) as figure:
        plot = _plot(figure, axes)
        for row, bar in enumerate(bars):
            ends = [0.0, 0.0]  # of the parts above 0 and below
            for part, (value, name) in enumerate(zip(bar.parts, names, strict=True)):
                side = int(value < 0)
                label = name if row == 0 else None
                plot.barh(row, value, left=ends[side], height=0.68, color=COLOURS[part], label=label)
                ends[side] += value
            plot.plot([sum(bar.parts)] * 2, [row - 0.42, row + 0.42], color=COLOURS[-1], linewidth=2)
        plot.axvline(0, color=GRID, linewidth=0.8)
        plot.set_yticks(range(len(bars)), [bar.style.letter for bar in bars], fontweight="bold")
        plot.set_ylim(len(bars) - 0.4, -0.6)
        plot.grid(False, axis="y")
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
        return inline(figure, prefix, title)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of that many inches, drawn with the report's settings."""
    with rc_context(SETTINGS):
        yield Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _plot(figure: Figure, axes: Axes) -> Any:
    plot = figure.add_subplot()
    plot.set_xlabel(axes.x)
    plot.set_ylabel(axes.y)
    if axes.title:
        plot.set_title(axes.title)
    plot.grid(True)
    plot.set_axisbelow(True)
    return plot


def _markers(plot: Any, points: Sequence[Point]) -> None:
    for point in points:
        colour = COLOURS[point.style.colour]
        plot.plot([point.x], [point.y], marker=point.style.marker, markersize=7, linestyle="", color=colour)
        _bars(plot, [point.x], [point.y], [point.half], colour)


def _bars(plot: Any, x: Any, y: Any, halves: Sequence[float | None], colour: str) -> None:
    """Intervals, where they are known."""
    measured = [k for k, half in enumerate(halves) if half is not None]
    if measured:
        at = ([x[k] for k in measured], [y[k] for k in measured])
        sizes = [halves[k] for k in measured]
        plot.errorbar(*at, yerr=sizes, fmt="none", ecolor=colour, elinewidth=1, alpha=0.55)


def limits(points: Sequence[tuple[float, float | None]]) -> tuple[float, float]:
    """The range of an axis that shows all means and, of their intervals, 60 % of the range of the means.

    Intervals from two seeds are huge. `points`: mean and half its interval.
    """
    low, high = min(mean for mean, _ in points), max(mean for mean, _ in points)
    room = max(0.6 * (high - low), 0.02 * max(abs(low), abs(high)), 1e-9)
    bottom = max(min(mean - (half or 0.0) for mean, half in points), low - room)
    top = min(max(mean + (half or 0.0) for mean, half in points), high + room)
    margin = 0.08 * max(top - bottom, room)
    return bottom - margin if low < 0 else max(bottom - margin, -margin / 2), top + margin


def _letters_at_the_end(plot: Any, series: Sequence[Series]) -> None:
    """Each row's letter right of its last point, moved up or down until no two overlap."""
    ends = [line for line in series if len(line.y)]
    low, high = plot.get_ylim()
    last = max((line.x[-1] for line in ends), default=0)
    plot.set_xlim(plot.get_xlim()[0], last + 0.04 * max(last, 1) + DODGE * len(series) / 2)
    share = min(LETTER, 1 / max(len(ends), 1))
    heights = spread([line.y[-1] for line in ends], (high - low) * share, (low, high))
    for height, line in zip(heights, ends, strict=True):
        colour = COLOURS[line.style.colour]
        plot.annotate(
            line.style.letter,
            (line.x[-1], line.y[-1]),
            (1.03, height),
            textcoords=plot.get_yaxis_transform(),
            va="center",
            fontsize=9 * share / LETTER,
            fontweight="bold",
            color=colour,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5, "shrinkA": 1, "shrinkB": 3},
        )
    plot.set_ylim(low, high)


def _letters_beside(plot: Any, points: Sequence[Point]) -> None:
    """Each row's letter right of its point; those of points above each other are moved until no two overlap."""
    places = plot.transData.transform([(point.x, point.y) for point in points])  # in pixels, whatever the axes' scale
    size = plot.bbox.height * LETTER
    columns: dict[int, list[int]] = {}
    for index, (x, _) in enumerate(places):
        near = next((k for k, members in columns.items() if abs(places[members[0]][0] - x) < 1.5 * size), index)
        columns.setdefault(near, []).append(index)
    for members in columns.values():
        gap = min(size, plot.bbox.height / len(members))
        heights = spread([places[index][1] for index in members], gap, (plot.bbox.y0, plot.bbox.y1))
        for index, height in zip(members, heights, strict=True):
            offset = (8, height - places[index][1])
            at, letter = (points[index].x, points[index].y), points[index].style.letter
            plot.annotate(letter, at, offset, textcoords="offset points", va="center", fontsize=9 * gap / size)


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
