"""`densecl report --leaderboard`: the rankings alone, with what each row kept and had, to be filtered by it."""

from collections.abc import Sequence
from typing import Any

from densecl.records.bundle import source_of
from densecl.records.layout import clean
from densecl.records.record import Found, Record
from densecl.report import answer
from densecl.report.gather import Benchmark, Member, benchmarks
from densecl.report.grids import Datum, Grid, Head, ranking
from densecl.report.page import facts, fill
from densecl.tables import honest
from densecl.tables.choose import Choice
from densecl.tables.paper import Names
from densecl.tables.scores import MIB

MEMORY = ((0, "nothing"), (1, "up to 1 MiB"), (10, "up to 10 MiB"), (100, "up to 100 MiB"))
MORE, UNKNOWN = "more than 100 MiB", "not known"
TAGS = ("backbone", "protocol", "memory")  # what rows are filtered by


def render(
    files: Sequence[Found], faults: Sequence[str] = (), *, source: str, choice: Choice | None = None
) -> tuple[str, list[str]]:
    """The page as HTML, and what could not be shown; for the arguments see `densecl.report.page.render`."""
    names, notes = Names(None), list(faults)
    shown = benchmarks(files, choice)
    boards = [(benchmark, board(benchmark)) for benchmark in shown]
    values = {tag: sorted({line.tags[tag] for _, grid in boards for line in grid.lines}) for tag in TAGS}
    sizes = [name for _, name in MEMORY] + [MORE, UNKNOWN]
    values["memory"].sort(key=sizes.index)
    sections: list[dict[str, Any]] = [
        {
            "benchmark": benchmark,
            "answer": answer.headline(benchmark, names),
            "facts": facts(benchmark),
            "board": grid,
        }
        for benchmark, grid in boards
    ]
    text = fill(
        "leaderboard.html.j2",
        shown,
        names,
        source=source,
        sections=sections,
        filters=values,
        notes=notes,
        album=(),
    )
    return text, notes


def board(benchmark: Benchmark) -> Grid:
    """The ranking of a benchmark, each line with its tags, and columns of what the method kept, had, and came from."""
    grid = ranking(benchmark)
    had: dict[int, str] = {}
    if not benchmark.is_sequence:
        _, examined = honest.examine_benchmark(benchmark.scored, benchmark.records)
        had = {id(run): ", ".join(one.extras) for one in examined for run in one.row.runs}
    sent_by = {id(member): _sent_by(member) for member in benchmark.members}
    heads = [Head("kept MiB", about="kept from earlier steps: images, teachers, masks"), Head("protocol", False)]
    heads += [Head("had besides", False)] if any(had.values()) else []
    heads += [Head("sent by", False)] if any(sent_by.values()) else []
    lines = []
    for line in grid.lines:
        member, kept = line.member, honest.kept_bytes(line.member.row)
        protocol = protocol_of(member.records[0])
        own = [Datum("–") if kept is None else Datum(f"{kept / MIB:.1f}", kept), Datum(protocol)]
        own += [Datum(had.get(id(member.records[0]), ""))] if any(had.values()) else []
        own += [Datum(sent_by[id(member)])] if any(sent_by.values()) else []
        tags = {"backbone": member.row.backbone, "protocol": protocol, "memory": memory_class(kept)}
        lines.append(line._replace(cells=(*line.cells, *own), tags=tags))
    return grid._replace(heads=(*grid.heads, *heads), lines=tuple(lines))


def protocol_of(record: Record) -> str:
    """The setting of the stream and how classes to come are labelled: `overlapped, plop2021`."""
    if record.tasks:
        return "task sequence"
    stream = record.settings.get("stream", {})
    parts = [value for key in ("setting", "labels") if isinstance(value := stream.get(key), str)]
    return clean(", ".join(parts)) or "not stated"


def memory_class(kept: float | None) -> str:
    """Say in words how much a method keeps from earlier steps."""
    if kept is None:
        return UNKNOWN
    return next((name for most, name in MEMORY if kept <= most * MIB), MORE)


def _sent_by(member: Member) -> str:
    """The bundles that a row's runs came in."""
    return ", ".join(dict.fromkeys(name for run in member.runs if (name := source_of(run.path))))
