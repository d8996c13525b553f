"""Numbers of papers against ours: only where both followed one protocol; else why they are not compared."""

from collections.abc import Sequence
from typing import NamedTuple

from densecl.records.published import Reported
from densecl.report import figures
from densecl.report.figures import Axes, Point
from densecl.report.gather import Benchmark, Member
from densecl.report.sections import Plot
from densecl.report.tables import Datum, Grid, Head, Line, half, in_view
from densecl.tables.against import against


class Comparison(NamedTuple):
    """Figure and table of what can be compared, and for each benchmark what is to be said of the rest."""

    plot: Plot | None
    grid: Grid | None
    reasons: tuple[tuple[str, tuple[str, ...]], ...]  # benchmark, sentences


def compare(benchmarks: Sequence[Benchmark], reported: Sequence[Reported]) -> Comparison:
    """Every reported value that has one of ours beside it."""
    points: list[Point] = []
    lines: list[Line] = []
    reasons: list[tuple[str, tuple[str, ...]]] = []
    for benchmark in benchmarks:
        table, found = in_view(benchmark)
        (beside,) = against([table], reported)
        members = {id(row): member for member, row in zip(benchmark.members, found, strict=True)}
        member: Member | None = None
        ours = None
        for row in beside.rows:
            if not row.source:
                member, ours = members[id(row)], row
                continue
            assert member is not None  # a row of published numbers stands below one of ours
            assert ours is not None
            for column, mine, theirs in zip(beside.columns, ours.cells, row.cells, strict=True):
                if theirs.mean is None or theirs.difference is None or mine.mean is None:
                    continue
                width = half(mine)
                x, y = 100 * theirs.mean, 100 * mine.mean
                points.append(Point(member.style, x, y, None if width is None else 100 * width))
                spread = "" if width is None else f"{100 * width:.1f}"
                cells = (
                    Datum(benchmark.name),
                    Datum(row.source),
                    Datum(column.heading),
                    Datum(f"{x:.1f}", x),
                    Datum(f"{y:.1f}", y, spread),
                    Datum(f"{y - x:+.1f}", y - x),
                )
                lines.append(Line(member, "", cells))
        said = tuple(note for note in beside.notes if note not in table.notes)
        reasons.append((benchmark.name, said or ("nothing published is known for it",)))
    if not points:
        return Comparison(None, None, tuple(reasons))
    title = "Mean IoU measured here against what papers report for the same protocol"
    svg = figures.agreement("against", title, Axes("reported, %", "measured, %"), points)
    texts = ("benchmark", "source", "classes")
    heads = (*(Head(text, False) for text in texts), Head("reported"), Head("measured"), Head("difference"))
    caption = "On the dashed line both agree. Letters are those of the benchmark's ranking."
    return Comparison(Plot(svg, caption, ()), Grid(heads, tuple(lines)), tuple(reasons))
