"""Numbers of papers beside ours, if both followed one protocol; else the reasons why they are not compared."""

from collections.abc import Sequence
from typing import NamedTuple

from densecl.records.published import Reported
from densecl.report import charts
from densecl.report.charts import Axes, Point
from densecl.report.gather import Benchmark
from densecl.report.grids import Datum, Grid, Head, Line, in_view, number
from densecl.report.sections import Plot, scaled
from densecl.tables.against import against


class Comparison(NamedTuple):
    """Figure and table of what can be compared, and for each benchmark the reasons for the rest."""

    plot: Plot | None
    grid: Grid | None
    reasons: tuple[tuple[str, tuple[str, ...]], ...]  # benchmark, sentences


def compare(benchmarks: Sequence[Benchmark], reported: Sequence[Reported]) -> Comparison:
    """Every reported value that has one of ours beside it."""
    points: list[Point] = []
    lines: list[Line] = []
    reasons: list[tuple[str, tuple[str, ...]]] = []
    for benchmark in benchmarks:
        table, rows = in_view(benchmark)
        (beside,) = against([table], reported, benchmark.group)
        members = {id(row): member for member, row in zip(benchmark.members, rows, strict=True)}
        ours = beside.rows[0]
        for row in beside.rows:
            if not row.source:  # the rows of published numbers below it are compared with it
                ours = row
                continue
            member = members[id(ours)]
            for column, mine, theirs in zip(beside.columns, ours.cells, row.cells, strict=True):
                if theirs.mean is None or theirs.difference is None or mine.mean is None:
                    continue
                share = column.kind == "share"
                if share:
                    points.append(
                        Point(member.style, 100 * theirs.mean, 100 * mine.mean, scaled(mine.half), member.short)
                    )
                names = (Datum(benchmark.name), Datum(row.source), Datum(column.heading))
                apart = f"{100 * theirs.difference:+.1f}" if share else f"{theirs.difference:+.4g}"
                both = (number(theirs, share), number(mine, share)._replace(best=False, close=False))
                lines.append(Line(member, (*names, *both, Datum(apart, theirs.difference))))
        why = tuple(note for note in beside.notes if note not in table.notes)
        reasons.append((benchmark.name, why or ("nothing published is known for it",)))
    if not lines:
        return Comparison(None, None, tuple(reasons))
    title = "Mean IoU measured here against what papers report for the same protocol"
    names, numbers = ("benchmark", "source", "classes"), ("reported", "measured", "difference")
    grid = Grid((*(Head(name, False) for name in names), *map(Head, numbers)), tuple(lines))
    if not points:
        return Comparison(None, grid, tuple(reasons))
    svg = charts.agreement("against", title, Axes("reported, %", "measured, %"), points)
    caption = "On the dashed line both agree."
    return Comparison(Plot(svg, caption), grid, tuple(reasons))
