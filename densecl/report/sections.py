"""Figures and tables of one benchmark, from records alone; a part that does not apply is empty."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from densecl.report import charts, retention
from densecl.report.charts import Axes, Point, Series
from densecl.report.gather import Benchmark, Member
from densecl.report.grids import Datum, Grid, Head, Line, in_view, number, over_seeds
from densecl.tables.honest import kept_bytes
from densecl.tables.intervals import interval
from densecl.tables.measure import METRIC_NAMES
from densecl.tables.scores import MIB

BARS = "Bars are 95 % intervals over seeds; very long ones are cut off."
LEAST_SCALE = 0.1  # IoU that has full colour in a heat map, at least


class Plot(NamedTuple):
    """A figure and its caption."""

    svg: str
    caption: str


class Matrix(NamedTuple):
    """Scores of one row of a sequence: `cells[i][j]` is that of task i after task j, empty before it was learnt."""

    member: Member
    tasks: tuple[str, ...]  # with their metric
    cells: tuple[tuple[Datum, ...], ...]


def over_steps(benchmark: Benchmark) -> Plot | None:
    """The mean of all classes seen so far after each step; a run of one step stands at the end of the stream."""
    table, rows = in_view(benchmark, per_step=True)
    at = [index for index, column in enumerate(table.columns) if column.heading.startswith("step ")]
    series = []
    for member, row in zip(benchmark.members, rows, strict=True):
        measured = [index for index in at if row.cells[index].mean is not None]
        steps = [int(table.columns[index].heading.removeprefix("step ")) for index in measured]
        means = [100 * (row.cells[index].mean or 0.0) for index in measured]
        halves = [scaled(row.cells[index].half) for index in measured]
        series.append(Series(member.style, steps, means, halves, member.short))
    series = [line for line in series if line.x]
    if max((max(line.x) for line in series), default=0) == 0:
        return None
    title = f"{benchmark.name}: mean IoU of all classes seen so far after each step, a line for each row of the ranking"
    svg = _over_time(f"{benchmark.slug}-steps", title, Axes("after step", "mIoU, %"), series)
    return Plot(svg, f"Mean IoU of all classes seen so far. {BARS}")


def _over_time(prefix: str, title: str, axes: Axes, series: Sequence[Series]) -> str:
    """Lines over the steps; of one later step alone, bars, as two points make no course."""
    if len({step for line in series for step in line.x if step}) > 1:
        return charts.lines(prefix, title, axes, series)
    last = [Point(line.style, line.x[-1], line.y[-1], line.half[-1], line.name) for line in series]
    return charts.bars(title, "%", last)


def heat_maps(benchmark: Benchmark) -> tuple[list[tuple[Member, str]], float]:
    """Loss of each class after each step, a map for each row of several steps, and the amount that has full colour."""
    classes, count = benchmark.layout.classes, len(benchmark.layout.steps)
    values: list[tuple[Member, np.ndarray]] = []
    for member in benchmark.members if classes and count > 1 and not benchmark.is_sequence else ():
        matrices = [retention.lost(record, classes, count) for record in member.records if len(record.steps) > 1]
        values += [(member, retention.mean(matrices))] if matrices else []
    scale = max([LEAST_SCALE, *(float(np.nanmax(np.abs(lost), initial=0.0)) for _, lost in values)])
    names = benchmark.records[0].class_names
    labels = [names[label] if label < len(names) else str(label) for label in classes]
    result = []
    for member, lost in values:
        svg = charts.heat_map(f"{member.label}: {_worst(lost, labels)}", lost, labels, scale)
        result.append((member, svg))
    return result, scale


def leaks(benchmark: Benchmark) -> tuple[list[Plot], Grid | None]:
    """Predictions on pixels of previous classes: figures over the steps, and a table after the last one."""
    leaking = []
    for member in () if benchmark.is_sequence else benchmark.members:
        runs = [shares for record in member.records if (shares := retention.by_step(record))]
        leaking += [(member, runs)] if runs else []
    if not leaking:
        return [], None
    zero = "background" if benchmark.records[0].has_background else "output 0 (something else)"
    plots = []
    for name, short, words in (
        ("background", zero, f"predicted {zero}"),
        ("current", "current classes", "predicted as a class of the step just learnt"),
    ):
        series = []
        for member, runs in leaking:
            steps = sorted(set().union(*runs))
            values = [[100 * getattr(run[step], name) for run in runs if step in run] for step in steps]
            means, halves = list(map(statistics.fmean, values)), list(map(interval, values))
            series.append(Series(member.style, steps, means, halves, member.short))
        text = f"pixels of previous classes {words}, after each step"
        axes = Axes("after step", "pixels of previous classes, %", f"→ {short}")
        svg = _over_time(f"{benchmark.slug}-{name}", f"{benchmark.name}: share of {text}", axes, series)
        plots.append(Plot(svg, f"Share of {text}."))
    heads = (
        Head("kept", about="predicted as their own class"),
        Head(zero.split(" (")[0], about=f"predicted {zero}"),
        Head("current", about="predicted as a class of the last step"),
        Head("other", about="predicted as another previous class"),
    )
    lines = []
    for member, runs in leaking:
        last = zip(*(run[max(run)] for run in runs), strict=True)
        lines.append(Line(member, tuple(over_seeds(values) for values in last)))
    note = "pixels of previous classes after the last step, in %; the four columns add up to 100"
    return plots, Grid(heads, tuple(lines), (note,))


def costs(benchmark: Benchmark) -> list[Plot]:
    """Accuracy against seconds and stored bytes; of a sequence, each task's last score against the file's size."""
    if benchmark.is_sequence:
        return _sizes(benchmark)
    seconds, stored = [], []
    for member in benchmark.members:
        cell = benchmark.table.cell(member.row, "all")
        runs = [record for record in member.records if record.steps and record.foreign is None]  # its cost is not known
        if cell.mean is None or member.row.progress or not runs:
            continue
        times = statistics.fmean(sum(step.seconds for step in record.steps) for record in runs)
        sizes = (kept_bytes(member.row) or 0) / MIB
        for points, x in ((seconds, times), (stored, sizes)):
            points.append(Point(member.style, x, 100 * cell.mean, scaled(cell.half), member.short))
    plots = []
    for name, x, words, points in (
        ("cost", "training, seconds", "the time that all steps trained", seconds),
        ("stored", "kept from earlier steps, MiB", "what is kept from earlier steps: images, teachers, masks", stored),
    ):
        title = f"mIoU of all classes after the last step against {words}"
        caption = f"mIoU after the last step against {words}. {BARS}"
        plots += _scatter(benchmark, name, title, Axes(x, "mIoU of all classes, %"), caption, points)
    return plots


def _sizes(benchmark: Benchmark) -> list[Plot]:
    plots = []
    for index, column in enumerate(benchmark.table.columns):
        if column.heading not in {
            f"{t.name} {METRIC_NAMES.get(t.primary, t.primary)}" for t in benchmark.records[0].tasks
        }:
            continue
        factor, unit = (100, ", %") if column.kind == "share" else (1, "")
        points = []
        for member in benchmark.members:
            cell, file = member.row.cells[index], benchmark.table.cell(member.row, "file")
            if cell.mean is not None and file.mean is not None and not member.row.progress:
                points.append(
                    Point(member.style, file.mean, factor * cell.mean, scaled(cell.half, factor), member.short)
                )
        title = f"last {column.heading} against the size of all that performs the tasks"
        axes = Axes("file, MiB", f"{column.heading}{unit}")
        caption = f"{column.heading}, {column.better} is better."
        plots += _scatter(benchmark, f"size{index}", title, axes, caption, points)
    return plots


def _scatter(
    benchmark: Benchmark, name: str, title: str, axes: Axes, caption: str, points: Sequence[Point]
) -> list[Plot]:
    """A figure of points; none without points."""
    if not points:
        return []
    shares = axes.y.endswith("%")
    svg = charts.scatter(f"{benchmark.slug}-{name}", f"{benchmark.name}: {title}", axes, points, shares=shares)
    return [Plot(svg, caption)]


def matrices(benchmark: Benchmark) -> list[Matrix]:
    """Of a sequence: the score of every task after every later one."""
    if not benchmark.is_sequence:
        return []
    table, rows = in_view(benchmark, per_step=True)
    kinds = {column.heading: column.kind for column in table.columns}
    result = []
    for member, row in zip(benchmark.members, rows, strict=True):
        tasks = max((record.tasks for record in member.records), key=len)
        lines = []
        for task in tasks:
            headings = [f"{task.name} after {after}" for after in range(1, len(tasks) + 1)]
            cells = {heading: table.cell(row, heading) for heading in headings}
            shown = [Datum("") if c.mean is None else number(c, kinds[h] == "share") for h, c in cells.items()]
            lines.append(tuple(shown))
        names = tuple(f"{task.name} ({METRIC_NAMES.get(task.primary, task.primary)})" for task in tasks)
        result.append(Matrix(member, names, tuple(lines)))
    return result


def scaled(value: float | None, factor: float = 100) -> float | None:
    """`value` times `factor`, if it is known."""
    return None if value is None else factor * value


def _worst(values: np.ndarray, names: Sequence[str]) -> str:
    """The heat map's last column in words."""
    last = [(loss, name) for loss, name in zip(values[:, -1], names, strict=True) if not np.isnan(loss)]
    if not last:
        return "IoU that each class lost, by step"
    loss, name = max(last, key=lambda pair: pair[0])
    return f"IoU lost after the last step, most by {name} ({100 * loss:.0f} points)"
