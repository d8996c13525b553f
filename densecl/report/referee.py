"""What a referee asks of a benchmark's rows, how stable their order is, and why the runs that were probed forgot."""

import statistics
from typing import NamedTuple

from densecl.errors import DenseCLError, RecordError
from densecl.records.probed import read_probed
from densecl.report import charts
from densecl.report.album import Fault
from densecl.report.charts import Axes, Bar
from densecl.report.gather import Benchmark, Member
from densecl.report.grids import Datum, Grid, Head, Line, over_seeds
from densecl.report.sections import Plot
from densecl.tables import honest, stability
from densecl.tables.anatomy import Lost, after_last
from densecl.tables.groupings import grouping

PARTS = ("features", "head: background", "head: newer classes", "head: older classes", "head: pixels of others")


class Anatomy(NamedTuple):
    """Figure and table of the rows whose runs were probed."""

    plot: Plot
    grid: Grid


def examined(benchmark: Benchmark) -> Grid | None:
    """Table of what each row has and lacks, averaged over class orders; None for a sequence of tasks."""
    if benchmark.is_sequence:
        return None
    table, rows = honest.examine_benchmark(benchmark.scored, benchmark.records)
    several = len({row.row.backbone for row in rows}) > 1
    heads = [Head("strategy", False), *([Head("backbone", False)] if several else []), *map(Head, honest.HEADINGS)]
    heads += [Head("lacks", False), Head("had besides", False)]
    lines = []
    for row in rows:
        names = [Datum(honest.name_of(row.row)), *([Datum(row.row.backbone)] if several else [])]
        values = [getattr(row, key) for key in row._fields[1 : 1 + len(honest.HEADINGS)]]  # in the headings' order
        numbers = [Datum(text, value) for text, value in zip(honest.texts(row), values, strict=True)]
        words = [Datum(", ".join(row.lacks) or "nothing"), Datum(", ".join(row.extras))]
        lines.append(Line(benchmark.members[0], (*names, *numbers, *words)))
    return Grid(tuple(heads), tuple(lines), honest.remarks(table))


def order(benchmark: Benchmark, fault: Fault) -> Grid | None:
    """Table of how the order of methods changes with the rules; None where there is nothing to compare."""
    if not benchmark.is_ranked:
        return None
    records = benchmark.records
    try:
        stability.refuse_other_classes({benchmark.scored: records}, lambda record: f"run {record.hash}")
    except RecordError as error:
        fault(str(error))
        return None
    found = stability.of_benchmark(benchmark.scored, records, grouping("with-bg"))
    heads = (*(Head(name, False) for name in stability.HEADINGS[:3]), *map(Head, stability.HEADINGS[3:]))
    lines = []
    for one in found.compared:
        words = (Datum(one.axis), Datum(" · ".join(one.rules)), Datum(stability.which(one, found)))
        count = len(one.flips)
        share = Datum(stability.share_text(one, found), count / found.pairs)
        numbers = (Datum(stability.tau_text(one), one.tau), Datum(str(count), count), share)
        lines.append(Line(benchmark.members[0], (*words, *numbers)))
    return Grid(heads, tuple(lines), stability.remarks(found)) if lines else None


def anatomy(benchmark: Benchmark, fault: Fault) -> Anatomy | None:
    """Table of what the old classes of each probed row lost after the last step; None where no run was probed."""
    bars, lines = [], []
    for member in benchmark.members:
        runs = _probed(member, fault)
        if not runs:
            continue
        parts = [(one.split.representation, *one.split.classifier) for one in runs]
        means = [100 * statistics.fmean(values) for values in zip(*parts, strict=True)]
        bars.append(Bar(member.style, tuple(means), member.short))
        splits = [one.split for one in runs]
        heads = [(split.lost, split.representation, split.head) for split in splits]
        rows = [(one.learnt, one.now, *terms, *one.split.classifier) for one, terms in zip(runs, heads, strict=True)]
        cells = [over_seeds(values) for values in zip(*rows, strict=True)]
        lines.append(Line(member, (Datum(str(len(runs)), len(runs)), *cells)))
    if not bars:
        return None
    title = f"{benchmark.name}: IoU that old classes lost by the last step, split into features and head"
    svg = charts.stacked(f"{benchmark.slug}-anatomy", title, Axes("points of IoU lost", ""), bars, PARTS)
    caption = "Mean over classes of earlier steps and over the runs that were probed. Parts left of 0 were gained."
    names = ("probed", "learnt", "now", "lost", "features", "head", "background", "newer", "older", "others' pixels")
    grid = Grid(tuple(map(Head, names)), tuple(lines), ("in points of IoU; lost = features + head",))
    return Anatomy(Plot(svg, caption), grid)


def _probed(member: Member, fault: Fault) -> list[Lost]:
    """The mean of all old classes after the last step, of each probed run of a row."""
    found = []
    for run in member.runs:
        try:
            probed = read_probed(run.path.parent, run.record)
        except DenseCLError as error:
            fault(str(error))
            continue
        if probed is not None and (lost := after_last(run.record, probed)) is not None:
            found.append(lost)
    return found
