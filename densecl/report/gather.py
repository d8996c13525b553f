"""The rows of each benchmark's table with the runs behind them, the best row first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from densecl.records.layout import Layout, Scored, by_benchmark
from densecl.records.record import Found, Record
from densecl.report.style import Style, style
from densecl.tables.measure import BothMeans, View
from densecl.tables.table import Row, Table, table_of


@dataclass(frozen=True)
class Member:
    """A row of the benchmark's table and its runs, one per seed, in the order of `row.seeds`."""

    row: Row
    runs: tuple[Found, ...]
    style: Style

    @property
    def label(self) -> str:
        """Strategy, and what distinguishes it: `mib, batchnorm=train`."""
        return ", ".join(part for part in (self.row.strategy, self.row.note, self.row.progress) if part)

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

    @property
    def name(self) -> str:
        """The heading of its section."""
        return self.scored.name

    @property
    def layout(self) -> Layout:
        """The classes of its steps."""
        return self.scored.layout

    @property
    def is_sequence(self) -> bool:
        """True if tasks arrive, not classes."""
        return bool(self.records[0].tasks)

    @property
    def is_ranked(self) -> bool:
        """True if its rows are ranked by the mean of all classes on test images."""
        return not self.is_sequence and not self.scored.held_out

    def best(self, count: int) -> "Benchmark":
        """The same with `count` rows: the best and, in a quarter of the places, what has no rank, such as joint."""
        if len(self.members) <= count:
            return self
        ranked = [member for member in self.members if member.row.ranked or not self.is_ranked]
        apart = [member for member in self.members if self.is_ranked and not member.row.ranked]
        apart = apart[: max(count // 4, count - len(ranked))]
        members = (*ranked[: count - len(apart)], *apart)  # in order: what has no rank stands below
        return replace(self, members=members, records=tuple(record for member in members for record in member.records))


def benchmarks(all_runs: Sequence[Found]) -> list[Benchmark]:
    """The benchmarks of all records, in order of name; letters and colours follow the rank."""
    of_record = {id(run.record): run for run in all_runs}
    result = []
    for number, (scored, records) in enumerate(by_benchmark([run.record for run in all_runs]).items()):
        table = table_of(scored, records, View(BothMeans()))
        ordered = sorted(table.rows, key=lambda row: rank_order(row, table, "all"))
        members = tuple(
            Member(row, tuple(of_record[id(record)] for record in row.runs), style(index))
            for index, row in enumerate(ordered)
        )
        words = re.sub(r"[^a-z0-9]+", "-", table.benchmark.lower()).strip("-") or "benchmark"
        result.append(Benchmark(scored, f"{words}-{number}", table, members, tuple(records)))
    return result


def rank_order(row: Row, table: Table, heading: str) -> tuple[bool, bool, float]:
    """Sort key: ranked rows first, the highest value of a column on top; rows without a value keep their order."""
    mean = table.cell(row, heading).mean
    return not row.ranked, bool(row.progress), 0.0 if mean is None else -mean
