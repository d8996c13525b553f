"""IoU by class and row after the last step, as a table of the page."""

from densecl.report.gather import Benchmark
from densecl.report.grids import MARKS, Datum, Grid, Head, Line, number
from densecl.tables.measure import BothMeans, View
from densecl.tables.table import table_of


def per_class(benchmark: Benchmark) -> Grid | None:
    """A line for each class, a column for each row of the ranking, with its name; None where no class has a score."""
    table = table_of(benchmark.scored, benchmark.records, View(BothMeans(), per_class=True))
    if not table.columns:
        return None
    of_run = {id(row.runs[0]): row for row in table.rows}
    rows = [of_run[id(member.row.runs[0])] for member in benchmark.members]
    heads = (Head("class", False), *(Head(m.short, about=m.label) for m in benchmark.members))
    lines = [
        Line(
            benchmark.members[0],
            (Datum(column.heading), *(number(row.cells[index], True)._replace(spread="") for row in rows)),
        )
        for index, column in enumerate(table.columns)
    ]
    marks = (table.notes[0], "mean over seeds", MARKS["best"], MARKS["close"])
    return Grid(heads, tuple(lines), marks, heat=True)
