"""The answer of a page, before its figures: a sentence for each benchmark, and methods x benchmarks in one table."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from densecl.report.gather import Benchmark, Member, cell_in
from densecl.report.grids import MARKS, Datum, Grid, Head, Line, number, p_text
from densecl.tables import honest
from densecl.tables.columns import FEWEST, LEVEL, rounded
from densecl.tables.paper import Names

SPACE = "\N{NO-BREAK SPACE}"


class Headline(NamedTuple):
    """The best row of a benchmark in a sentence: `name` (`note`) `says`."""

    name: str
    note: str
    says: str


def headline(benchmark: Benchmark, names: Names) -> Headline | None:
    """The best row, how far it is above the best row of another method, and what the paired test says of that.

    None where nothing is ranked.
    """
    ranked = benchmark.ranked
    if not ranked:
        return None
    best, *others = ranked
    column, cell = cell_in(benchmark, best)
    assert column is not None  # a ranked benchmark has one
    shown = number(cell, column.kind == "share")
    score = f"{shown.text}{f' ± {shown.spread}' if shown.spread else ''} ({benchmark.by})"
    seeds = f"{len(best.row.seeds)} seed{'s' * (len(best.row.seeds) > 1)}"
    rival = next((other for other in others if other.method != best.method), next(iter(others), None))
    if rival is None:
        return Headline(names.display(best.row.strategy), best.row.note, f"is alone: {score}; {seeds}")
    _, theirs = cell_in(benchmark, rival)
    assert cell.mean is not None  # ranked rows have a mean
    assert theirs.mean is not None
    share = column.kind == "share"
    apart = abs(rounded(column, cell.mean) - rounded(column, theirs.mean))
    distance = f"{apart:.1f} points" if share else f"{apart:.4g}"
    side = "below" if column.better == "lower" else "above"
    other = names.display(rival.row.strategy) + (f" ({rival.row.note})" if rival.method == best.method else "")
    if theirs.p is None:
        verb, test = "leads", f"too few common seeds for a test (it takes {FEWEST})"
    else:
        p = p_text(theirs.p)
        told = f"p{SPACE}{p.replace(' ', SPACE)}" if p.startswith("<") else f"p{SPACE}={SPACE}{p}"
        verb, test = ("is best", told) if theirs.p < LEVEL else ("leads", f"which may be chance, {told}")
    close = sum(cell_in(benchmark, row)[1].close for row in others)
    tied = f"; {close} set-up{'s' * (close > 1)} cannot be told from it" if close and verb == "is best" else ""
    of_rival = honest.extras(rival.row)
    had = [what for what in honest.extras(best.row) if what not in of_rival]
    besides = f"; it had besides: {', '.join(had)}" if had else ""
    text = f"{verb}: {score}, {distance} {side} {other}, {test}; {seeds}{tied}{besides}"
    return Headline(names.display(best.row.strategy), best.row.note, text)


def matrices(benchmarks: Sequence[Benchmark], names: Names) -> list[tuple[str, Grid]]:
    """Methods x benchmarks, of classes that arrive over time and of sequences of tasks; with what it is called."""
    kinds = (("Methods on streams of classes", False), ("Methods on sequences of tasks", True))
    result = []
    for title, sequence in kinds:
        members = [each for each in benchmarks if each.is_ranked and each.is_sequence == sequence]
        if members and max(len({m.method for m in each.members}) for each in members) > 1:
            result.append((title, _matrix(members, names)))
    return result


def _matrix(benchmarks: Sequence[Benchmark], names: Names) -> Grid:
    """A line for each method and backbone with its best row on each benchmark; most benchmarks, best ranks first."""
    rows: dict[tuple[str, str], dict[int, list[Member]]] = {}
    for number_of, benchmark in enumerate(benchmarks):
        order = {id(member): place for place, member in enumerate(benchmark.ranked)}
        for member in sorted(benchmark.members, key=lambda member, order=order: order.get(id(member), len(order))):
            if not member.row.progress and cell_in(benchmark, member)[1].mean is not None:
                rows.setdefault((member.method, member.row.backbone), {}).setdefault(number_of, []).append(member)
    several = len({backbone for _, backbone in rows}) > 1
    places = {
        key: [_place(benchmarks[number_of], own[0]) for number_of, own in found.items()] for key, found in rows.items()
    }
    lines = []
    for key in sorted(rows, key=lambda key: (-len(rows[key]), statistics.fmean(places[key]), key)):
        cells = [_cell(benchmark, rows[key].get(number_of, [])) for number_of, benchmark in enumerate(benchmarks)]
        first = next(iter(rows[key].values()))[0]
        marks = "†" * (first.row.oracle is not None) + "§" * first.row.foreign
        name = Datum(f"{names.display(key[0])}{marks}")
        lines.append(Line(first, (name, *([Datum(key[1])] if several else []), *cells)))
    heads = [Head("method", False), *([Head("backbone", False)] if several else [])]
    heads += [Head(f"{each.name}", about=f"ranked by {each.by}") for each in benchmarks]
    many = any(cell.note for line in lines for cell in line.cells)
    notes = [f"ranked by {', '.join(dict.fromkeys(each.by for each in benchmarks))}, in %"]
    notes += ["of n: the best of so many set-ups, which favours a method with many"] if many else []
    notes += [MARKS["interval"], MARKS["best"]]
    notes += [MARKS["close"]] if any(cell.close for line in lines for cell in line.cells) else []
    return Grid(tuple(heads), tuple(lines), tuple(notes))


def _place(benchmark: Benchmark, member: Member) -> float:
    """The place of a row as a share of all ranked rows, 0 for the best; one without a rank stands below."""
    ranked = benchmark.ranked
    return next((k / len(ranked) for k, other in enumerate(ranked) if other is member), 2.0)


def _cell(benchmark: Benchmark, members: Sequence[Member]) -> Datum:
    if not members:
        return Datum("–")
    column, cell = cell_in(benchmark, members[0])
    shown = number(cell, column is not None and column.kind == "share")
    return shown._replace(note=f"of {len(members)}") if len(members) > 1 else shown
