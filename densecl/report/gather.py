"""The rows of each benchmark's table with the runs behind them, the best row first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from densecl.records.layout import Layout, Scored, by_benchmark, method_name
from densecl.records.record import Found, Record
from densecl.report.style import Style, style
from densecl.tables.choose import Choice, choose_columns, heading_of, sort_rows
from densecl.tables.columns import Cell, Column
from densecl.tables.groupings import Grouping, grouping
from densecl.tables.measure import BothMeans, View
from densecl.tables.table import Row, Table, table_of

LONGEST = 38  # letters of a row's short name
IN_WORDS = re.compile(r"(?!(?:none|true|false)$)[^\W\d]\w*")  # values that say themselves what they are: frozen, noise


@dataclass(frozen=True)
class Member:
    """A row of the benchmark's table and its runs, one per seed, in the order of `row.seeds`."""

    row: Row
    runs: tuple[Found, ...]
    style: Style
    short: str  # its name in figures, unlike those of all other rows of the benchmark

    @property
    def label(self) -> str:
        """Strategy, and what distinguishes it: `mib, batchnorm=train`."""
        return ", ".join(part for part in (self.row.strategy, self.row.note, self.row.progress) if part)

    @property
    def method(self) -> str:
        """Strategy and plugins without arguments."""
        return method_name(self.row.strategy)

    @property
    def records(self) -> list[Record]:
        """Records of the runs."""
        return [run.record for run in self.runs]


@dataclass(frozen=True)
class Benchmark:
    """All runs on one benchmark; `records` are all of them, copies of a run too."""

    scored: Scored
    slug: str  # unique in the page
    table: Table
    members: tuple[Member, ...]
    records: tuple[Record, ...]
    group: str | None = None  # how classes are averaged, as `--group` names it
    shown: tuple[str, ...] = ()  # headings of the ranking's columns
    by: str = ""  # heading of the column that rows are ranked by; empty where nothing is ranked

    @property
    def name(self) -> str:
        """The heading of its section."""
        return self.scored.name

    @property
    def layout(self) -> Layout:
        """The classes of its steps."""
        return self.scored.layout

    @property
    def grouping(self) -> Grouping:
        """Ranges over which classes are averaged."""
        return _grouping(self.group)

    @property
    def is_sequence(self) -> bool:
        """True if tasks arrive, not classes."""
        return bool(self.records[0].tasks)

    @property
    def is_ranked(self) -> bool:
        """True if its rows are ranked: by the mean of all classes, or the change against networks of one task."""
        return bool(self.by)

    @property
    def ranked(self) -> list[Member]:
        """The rows that are ranked, the best first."""
        known = [m for m in self.members if m.row.ranked and self.table.cell(m.row, self.by).mean is not None]
        return sorted(known, key=lambda member: rank_order(member.row, self.table, self.by)) if self.by else []

    def best(self, count: int) -> "Benchmark":
        """The same with `count` rows: the best and, in a quarter of the places, what has no rank, such as joint."""
        if len(self.members) <= count:
            return self
        ranked = [member for member in self.members if member.row.ranked or not self.is_ranked]
        apart = [member for member in self.members if self.is_ranked and not member.row.ranked]
        apart = apart[: max(count // 4, count - len(ranked))]
        members = (*ranked[: count - len(apart)], *apart)  # in order: what has no rank stands below
        return replace(self, members=members, records=tuple(record for member in members for record in member.records))


def benchmarks(all_runs: Sequence[Found], choice: Choice | None = None) -> list[Benchmark]:
    """The benchmarks of all records, those with most methods and runs first; colours follow the rank.

    `choice` is that of `densecl table`; its conditions are not looked at here.
    """
    choice = choice or Choice()
    of_record = {id(run.record): run for run in all_runs}
    group = _grouping(choice.group)
    streams = by_benchmark([run.record for run in all_runs])
    tables = [table_of(scored, records, View(group)) for scored, records in streams.items()]
    ordered = tables if choice.sort is None else sort_rows(tables, choice.sort)
    headings = choose_columns(tables, choice.columns) if choice.columns else tables
    result = []
    for number, (scored, records) in enumerate(streams.items()):
        table, by = tables[number], "" if scored.held_out else _ranked_by(tables[number], group, choice)
        order = by or next((name for name in ("all", "Δm") if _column(tables[number], name)), "all")
        rows = sorted(table.rows, key=lambda row, table=table, order=order: rank_order(row, table, order))
        rows = rows if choice.sort is None else list(ordered[number].rows)
        members = tuple(
            Member(row, tuple(of_record[id(record)] for record in row.runs), style(index), short)
            for index, (row, short) in enumerate(zip(rows, _short_names(rows), strict=True))
        )
        shown = [column.heading for column in headings[number].columns]
        if not choice.columns:  # what decides comes first, where a narrow screen shows it
            shown.sort(key=lambda heading, order=order: heading != order)
        words = re.sub(r"[^a-z0-9]+", "-", table.benchmark.lower()).strip("-") or "benchmark"
        own = Benchmark(scored, f"{words}-{number}", table, members, tuple(records), choice.group, tuple(shown), by)
        result.append(own)
    return sorted(result, key=_size)


def rank_order(row: Row, table: Table, heading: str) -> tuple[bool, bool, float]:
    """Sort key: ranked rows first, the best value of a column on top; rows without a value stay below those."""
    column, mean = _column(table, heading), table.cell(row, heading).mean
    sign = 1 if column is not None and column.better == "lower" else -1
    return not row.ranked, bool(row.progress), float("inf") if mean is None else sign * mean


def cell_in(benchmark: Benchmark, member: Member) -> tuple[Column | None, Cell]:
    """The column that a benchmark is ranked by, and a row's cell in it."""
    return _column(benchmark.table, benchmark.by), benchmark.table.cell(member.row, benchmark.by)


def _grouping(group: str | None) -> Grouping:
    return BothMeans() if group is None else grouping(group)


def _column(table: Table, heading: str) -> Column | None:
    return next((column for column in table.columns if column.heading == heading), None)


def _ranked_by(table: Table, group: Grouping, choice: Choice) -> str:
    """The heading that rows are ranked by: the column they are sorted by, else that of all classes or tasks."""
    chosen = "" if choice.sort is None else heading_of([table], choice.sort)
    names = (chosen, group.extra, "all", "Δm")
    found = (column for name in names if name and (column := _column(table, name)) is not None and column.better)
    column = next(found, None)
    return "" if column is None else column.heading


def _size(benchmark: Benchmark) -> tuple[bool, int, int, str]:
    """Sort key: most methods and runs first, what was scored on held-out images last."""
    methods = {member.method for member in benchmark.members}
    return benchmark.scored.held_out, -len(methods), -len(benchmark.records), benchmark.name


def _short_names(rows: Sequence[Row]) -> list[str]:
    """A name of some `LONGEST` letters for each row, such as `mib frozen`; of equal ones, all but one have a number."""
    result: list[str] = []
    for row in rows:
        values = [part.partition("=") for part in re.split(r", (?=[\w.]+=)", row.note)] if row.note else []
        note = ", ".join(value if IN_WORDS.fullmatch(value) else f"{key}{sign}{value}" for key, sign, value in values)
        name = " ".join(part for part in (row.strategy, note, f"({row.progress})" if row.progress else "") if part)
        name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        again = sum(other.partition(" #")[0] == name for other in result)
        result.append(f"{name} #{again + 1}" if again else name)
    return result
