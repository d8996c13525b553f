"""What the page says of one benchmark: figures and tables, from records alone."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from densecl.report import figures, forgetting, leakage
from densecl.report.figures import Axes, Point, Series
from densecl.report.gather import Benchmark, Member, cell_mean
from densecl.report.tables import Datum, Grid, Head, Line, half, in_view, percent
from densecl.tables.intervals import interval

BARS = "Bars are 95 % intervals over seeds; very long ones are cut off."
LEAST_SCALE = 0.1  # IoU that has full colour in a heat map, at least


class HeatMap(NamedTuple):
    """Loss by class and step of one row."""

    member: Member
    svg: str


class Plot(NamedTuple):
    """A figure, its caption, and the rows that it shows."""

    svg: str
    caption: str
    members: tuple[Member, ...]


def over_steps(benchmark: Benchmark) -> Plot | None:
    """The mean of all classes seen so far after each step; a run of one step stands at the end of the stream."""
    table, found = in_view(benchmark, per_step=True)
    at = [index for index, column in enumerate(table.columns) if column.heading.startswith("step ")]
    series = []
    for member, row in zip(benchmark.members, found, strict=True):
        known = [(index, mean) for index in at if (mean := row.cells[index].mean) is not None]
        steps = [int(table.columns[index].heading.removeprefix("step ")) for index, _ in known]
        halves = [scaled(half(row.cells[index])) for index, _ in known]
        series.append(Series(member.style, steps, [100 * mean for _, mean in known], halves))
    series = [one for one in series if one.x]
    if not series or max(max(one.x) for one in series) == 0:
        return None
    title = f"{benchmark.name}: mean IoU of all classes seen so far after each step, a line for each row of the ranking"
    svg = figures.lines(f"{benchmark.slug}-steps", title, Axes("after step", "mIoU, %"), series)
    return Plot(svg, f"Mean IoU of all classes seen so far. {BARS}", among(benchmark, series))


def heat_maps(benchmark: Benchmark) -> tuple[list[HeatMap], float]:
    """Loss of each class after each step, a map for each row of several steps, and the amount that has full colour."""
    classes = benchmark.layout.classes
    count = len(benchmark.layout.steps)
    found = []
    for member in benchmark.members if classes and count > 1 else ():
        matrices = [forgetting.lost(record, classes, count) for record in member.records if len(record.steps) > 1]
        if matrices:
            found.append((member, forgetting.mean(matrices)))
    largest = max((float(np.nanmax(np.abs(values), initial=0.0)) for _, values in found), default=0.0)
    scale = max(LEAST_SCALE, largest)
    names = benchmark.records[0].class_names
    result = []
    for member, values in found:
        labels = [names[label] if label < len(names) else str(label) for label in classes]
        title = f"{member.label}: {_worst(values, labels)}"
        prefix = f"{benchmark.slug}-lost-{member.style.letter}"
        result.append(HeatMap(member, figures.heat_map(prefix, title, values, labels, scale)))
    return result, scale


def leaks(benchmark: Benchmark) -> tuple[list[Plot], Grid] | None:
    """Where pixels of previous classes go: figures over the steps, and a table after the last one."""
    found = [(m, [leakage.by_step(record) for record in m.records]) for m in benchmark.members]
    found = [(member, [one for one in runs if one]) for member, runs in found]
    found = [(member, runs) for member, runs in found if runs]
    if not found:
        return None
    zero = "background" if benchmark.records[0].has_background else "output 0 (something else)"
    plots = []
    for name, short, words in (
        ("background", zero, f"predicted {zero}"),
        ("current", "current classes", "predicted as a class of the step just learnt"),
    ):
        series = []
        for member, runs in found:
            steps = sorted(set().union(*runs))
            values = [[100 * getattr(run[step], name) for run in runs if step in run] for step in steps]
            means = [statistics.fmean(of) for of in values]
            series.append(Series(member.style, steps, means, [interval(of) for of in values]))
        text = f"pixels of previous classes {words}, after each step"
        axes = Axes("after step", "pixels of previous classes, %", f"→ {short}")
        svg = figures.lines(f"{benchmark.slug}-{name}", f"{benchmark.name}: share of {text}", axes, series)
        plots.append(Plot(svg, f"Share of {text}.", among(benchmark, series)))
    heads = tuple(
        Head(text, about=about)
        for text, about in (
            ("kept", "predicted as their own class"),
            (zero.split(" (")[0], f"predicted {zero}"),
            ("current", "predicted as a class of the last step"),
            ("other", "predicted as another previous class"),
        )
    )
    lines = []
    for member, runs in found:
        last = [run[max(run)] for run in runs]
        cells = []
        for values in zip(*last, strict=True):
            width = interval(values)
            cells.append(
                Datum(
                    percent(statistics.fmean(values)), statistics.fmean(values), "" if width is None else percent(width)
                )
            )
        lines.append(Line(member, "", tuple(cells)))
    note = "pixels of previous classes after the last step, in %; the four columns add up to 100"
    return plots, Grid(heads, tuple(lines), (note,))


def costs(benchmark: Benchmark) -> list[Plot]:
    """Accuracy against seconds of training, and against what is kept from earlier steps."""
    seconds, stored = [], []
    for member in benchmark.members:
        row = member.row
        mean = cell_mean(row, benchmark.table, "all")
        runs = [record for record in member.records if record.steps]
        if mean is None or row.progress or not runs:
            continue
        index = [column.heading for column in benchmark.table.columns].index("all")
        y, y_half = 100 * mean, scaled(half(row.cells[index]))
        times = [sum(step.seconds for step in record.steps) for record in runs]
        sizes = [max(step.stored_bytes for step in record.steps) / 2**20 for record in runs]
        seconds.append(Point(member.style, statistics.fmean(times), y, y_half))
        stored.append(Point(member.style, statistics.fmean(sizes), y, y_half))
    if not seconds:
        return []
    plots = []
    for name, x, words, points in (
        ("cost", "training, seconds", "the time that all steps trained", seconds),
        ("stored", "kept from earlier steps, MiB", "what is kept from earlier steps: images, teachers, masks", stored),
    ):
        title = f"{benchmark.name}: mIoU of all classes after the last step against {words}"
        svg = figures.scatter(f"{benchmark.slug}-{name}", title, Axes(x, "mIoU of all classes, %"), points)
        plots.append(Plot(svg, f"mIoU after the last step against {words}. {BARS}", among(benchmark, points)))
    return plots


def among(benchmark: Benchmark, shown: Sequence[Series] | Sequence[Point]) -> tuple[Member, ...]:
    """The rows that a figure shows."""
    looks = {one.style for one in shown}
    return tuple(member for member in benchmark.members if member.style in looks)


def scaled(value: float | None, factor: float = 100) -> float | None:
    """`value` times `factor`, where it is known."""
    return None if value is None else factor * value


def _worst(values: np.ndarray, names: Sequence[str]) -> str:
    """The heat map's last column in words."""
    last = values[:, -1]
    known = [index for index in range(len(names)) if not np.isnan(last[index])]
    if not known:
        return "IoU that each class lost, by step"
    worst = max(known, key=lambda index: last[index])
    return f"IoU lost after the last step, most by {names[worst]} ({100 * last[worst]:.0f} points)"
