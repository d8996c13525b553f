"""The rows of each benchmark's table with the runs behind them, the best row first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from densecl.records.layout import Layout, by_benchmark
from densecl.records.record import Found, Record
from densecl.report.style import Style, style
from densecl.tables.table import Row, Table, rows


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

    name: str
    slug: str  # unique in the page
    table: Table
    layout: Layout
    members: tuple[Member, ...]
    records: tuple[Record, ...]

    @property
    def is_sequence(self) -> bool:
        """True if tasks arrive, not classes."""
        return bool(self.records[0].tasks)

    @property
    def is_ranked(self) -> bool:
        """True if its rows are ranked by the mean of all classes on test images."""
        return not self.is_sequence and not any(member.row.held_out for member in self.members)


def benchmarks(all_runs: Sequence[Found]) -> list[Benchmark]:
    """The benchmarks of all records, in order of name; letters and colours follow the rank."""
    of_record = {id(run.record): run for run in all_runs}
    result = []
    for number, (scored, records) in enumerate(by_benchmark([run.record for run in all_runs]).items()):
        (table,) = rows(records)
        ordered = sorted(table.rows, key=lambda row: rank_order(row, table, "all"))
        members = tuple(
            Member(row, tuple(of_record[id(record)] for record in row.runs), style(index))
            for index, row in enumerate(ordered)
        )
        words = re.sub(r"[^a-z0-9]+", "-", table.benchmark.lower()).strip("-") or "benchmark"
        result.append(Benchmark(table.benchmark, f"{words}-{number}", table, scored.layout, members, tuple(records)))
    return result


def rank_order(row: Row, table: Table, heading: str) -> tuple[bool, bool, float]:
    """Sort key: ranked rows first, the highest value of a column on top; rows without a value keep their order."""
    mean = table.cell(row, heading).mean
    return not row.ranked, bool(row.progress), 0.0 if mean is None else -mean
