"""The figures of a report, as inline SVG or HTML. They take plain values; the values are chosen elsewhere."""

import html
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from densecl.report import labels
from densecl.report.style import COLOURS, GAIN, GREY, LOSS, Style
from densecl.report.svg import BLACK, GRID, SETTINGS, inline

DPI = 72  # of SVG: an inch is 72 of its units, which the page shows as pixels
LEFT, BOTTOM, TOP = 0.62, 0.55, 0.14  # inches around the axes
LONGEST = 22  # letters of a class's name
DODGE = 0.035  # steps between neighbouring series, so that their intervals do not hide each other
SMALL = 2.0  # points: means that are nearer to each other have an axis from 0, which shows how near they are
SPAN = 10.0  # points of an axis that does not start at 0, at least


class Series(NamedTuple):
    """A line: `y[k]` after step `x[k]`, with half its interval if there is one."""

    style: Style
    x: Sequence[float]
    y: Sequence[float]
    half: Sequence[float | None]
    name: str


class Point(NamedTuple):
    """A point with half the interval of its height; its name is written beside it."""

    style: Style
    x: float
    y: float
    half: float | None
    name: str


class Bar(NamedTuple):
    """Parts of one row's bar, which add up; parts below 0 go the other way."""

    style: Style
    parts: Sequence[float]
    name: str


class Axes(NamedTuple):
    """Labels of the axes, and a title."""

    x: str
    y: str
    title: str = ""


class Range(NamedTuple):
    """The ends of an axis."""

    low: float
    high: float

    @property
    def words(self) -> str:
        """Where an axis of values above 0 starts, if not at 0."""
        return f"this axis starts at {self.low:g}" if self.low > 0 else ""


def lines(prefix: str, title: str, axes: Axes, series: Sequence[Series]) -> str:
    """Lines over steps; each ends in the name of its row."""
    right = 0.45 + max((labels.width_of(line.name) for line in series), default=0) / DPI
    tall = min(9.0, max(2.7, labels.SIZE * labels.LINE * len(series) / DPI))
    shown = limits([(y, half) for line in series for y, half in zip(line.y, line.half, strict=True)])
    with _figure(LEFT + 4.6 + right, tall + BOTTOM + TOP + 0.2 * bool(axes.title)) as figure:
        plot = _plot(figure, axes, right)
        for index, line in enumerate(series):
            shift = DODGE * (index - (len(series) - 1) / 2)
            colour, dash = COLOURS[line.style.colour], tuple(map(float, line.style.dash.split()))
            x = np.asarray(line.x, float) + (shift if len(line.x) > 1 else 0)
            plot.plot(x, line.y, marker=line.style.marker, color=colour, linestyle=(0, dash) if dash else "-")
            _intervals(plot, x, line.y, line.half, colour)
        plot.set_ylim(*shown)
        _break(plot, shown)
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        drawn = [line for line in series if len(line.y)]
        plot.set_xlim(plot.get_xlim()[0], max((line.x[-1] for line in drawn), default=0) + DODGE * len(series) / 2)
        looks = [(COLOURS[line.style.colour], line.style.marker) for line in drawn]
        labels.at_the_end(plot, [line.name for line in drawn], [(line.x[-1], line.y[-1]) for line in drawn], looks)
        return inline(figure, prefix, title)


def bars(title: str, unit: str, points: Sequence[Point]) -> str:
    """A bar from 0 for each row, its name before and its value behind it, as HTML that fits a narrow screen."""
    top = max([*(point.y for point in points), 1e-9])
    top = max(top, min(max(point.y + (point.half or 0.0) for point in points), 1.25 * top))
    rows = []
    for point in points:
        half = "" if point.half is None else f'<span class="spread"> ± {point.half:.1f}</span>'
        whisker = ""
        if point.half is not None:
            low, high = (min(max(end / top, 0.0), 1.0) for end in (point.y - point.half, point.y + point.half))
            whisker = f'<i class="whisker" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>'
        fill = (
            f'style="width:{100 * max(point.y, 0.0) / top:.2f}%;background:var(--s{point.style.colour},currentColor)"'
        )
        rows.append(
            f'<li><span class="name">{html.escape(point.name)}</span><span class="track"><i class="fill" {fill}></i>'
            f'{whisker}</span><span class="value">{point.y:.1f}{half}</span></li>'
        )
    end = f'<li class="ends" aria-hidden="true"><span></span><span>0<b>{top:.0f} {html.escape(unit)}</b></span></li>'
    return f'<ul class="bars" aria-label="{html.escape(title)}">{"".join(rows)}{end}</ul>'


def scatter(prefix: str, title: str, axes: Axes, points: Sequence[Point], *, shares: bool = True) -> str:
    """Points, each with the name of its row; an axis whose values span a factor of 20 is logarithmic.

    `shares`: heights are in percent; an axis of other numbers starts at 0.
    """
    shown = limits([(point.y, point.half) for point in points], shares)
    with _figure(6.6, min(7.0, max(3.4, 0.2 * len(points)))) as figure:
        plot = _plot(figure, axes, 0.9)
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
        plot.set_ylim(*shown)
        _break(plot, shown)
        labels.beside(plot, [point.name for point in points], [(point.x, point.y) for point in points])
        return inline(figure, prefix, title)


def agreement(prefix: str, title: str, axes: Axes, points: Sequence[Point]) -> str:
    """Measured against reported values, with the line on which both agree."""
    with _figure(6.4, 4.4) as figure:
        plot = _plot(figure, axes, 0.9)
        ends = [value for point in points for value in (point.x, point.y)]
        low, high = max(0.0, min(ends) - 5), max(ends) + 5
        plot.plot([low, high], [low, high], color=GRID, linewidth=1, linestyle="--")
        _markers(plot, points)
        plot.set_xlim(low, high)
        plot.set_ylim(low, high)
        labels.beside(plot, [point.name for point in points], [(point.x, point.y) for point in points])
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
    """A horizontal bar for each row, by its name, in parts with a colour each; a line marks their sum."""
    left = 0.15 + max((labels.width_of(bar.name) for bar in bars), default=0) / DPI
    with _figure(left + 5.2, 1.3 + 0.34 * len(bars)) as figure:
        plot = _plot(figure, axes, 0.15, left=left, top=0.6)
        for row, bar in enumerate(bars):
            ends = [0.0, 0.0]  # of the parts above 0 and below
            for part, (value, name) in enumerate(zip(bar.parts, names, strict=True)):
                side = int(value < 0)
                label = name if row == 0 else None
                plot.barh(row, value, left=ends[side], height=0.68, color=COLOURS[part], label=label)
                ends[side] += value
            plot.plot([sum(bar.parts)] * 2, [row - 0.42, row + 0.42], color=COLOURS[-1], linewidth=2)
        plot.axvline(0, color=GRID, linewidth=0.8)
        plot.set_yticks(range(len(bars)), [bar.name for bar in bars], fontsize=labels.SIZE)
        plot.set_ylim(len(bars) - 0.4, -0.6)
        plot.grid(False, axis="y")
        figure.legend(loc="upper left", ncols=3, frameon=False, fontsize=8)
        return inline(figure, prefix, title)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of that many inches, drawn with the report's settings."""
    with rc_context(SETTINGS):
        yield Figure(figsize=(width, height), dpi=DPI)


def _plot(figure: Figure, axes: Axes, right: float, left: float = LEFT, top: float = TOP) -> Any:
    """The axes, with that many inches around them."""
    wide, tall = figure.get_size_inches()
    top += 0.2 * bool(axes.title)
    sides = (left / wide, BOTTOM / tall, 1 - (left + right) / wide, 1 - (BOTTOM + top) / tall)
    plot = figure.add_axes(sides)
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
        _intervals(plot, [point.x], [point.y], [point.half], colour)


def _intervals(plot: Any, x: Any, y: Any, halves: Sequence[float | None], colour: str) -> None:
    """Intervals, where they are known."""
    measured = [k for k, half in enumerate(halves) if half is not None]
    if measured:
        at = ([x[k] for k in measured], [y[k] for k in measured])
        sizes = [halves[k] for k in measured]
        plot.errorbar(*at, yerr=sizes, fmt="none", ecolor=colour, elinewidth=1, alpha=0.55)


def _break(plot: Any, shown: Range) -> None:
    """Two strokes through an axis that does not start at 0, and words that say so."""
    if shown.low > 0:
        for height in (0.02, 0.045):
            ends = {"transform": plot.transAxes, "clip_on": False, "color": BLACK, "linewidth": 1}
            plot.plot([-0.012, 0.012], [height - 0.01, height + 0.01], **ends)
        plot.text(0.02, 0.02, shown.words, transform=plot.transAxes, fontsize=7.5)


def limits(points: Sequence[tuple[float, float | None]], shares: bool = True) -> Range:
    """The range of an axis that shows all means and, of their intervals, 60 % of the range of the means.

    Intervals from two seeds are huge. The axis starts at 0, so that noise is no cliff, unless all is in its upper half
    and means are at least `SMALL` points apart; then it has `SPAN` points at least. Only an axis of `shares`, in
    percent, may do so. `points`: mean and half its interval.
    """
    low, high = min(mean for mean, _ in points), max(mean for mean, _ in points)
    room = max(0.6 * (high - low), 0.02 * max(abs(low), abs(high)), 1e-9)
    bottom = max(min(mean - (half or 0.0) for mean, half in points), low - room)
    top = min(max(mean + (half or 0.0) for mean, half in points), high + room)
    bottom = max(bottom, 0.0) if low >= 0 else bottom
    top = min(top, 100.0) if shares and high <= 100 else top  # no share is more
    margin = 0.06 * (top - min(bottom, 0.0) + 1e-9)
    if low < 0:
        return Range(bottom - margin, max(top, 0.0) + margin)
    if shares and high - low >= SMALL and bottom > top / 2:
        start = 5.0 * math.floor((min(bottom, top - SPAN) - 1e-9) / 5)
        return Range(max(0.0, start), top + 0.06 * (top - start))
    return Range(0.0, top + margin) if low > margin / 2 else Range(-margin / 2, top + margin)
