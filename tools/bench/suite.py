"""Several kinds of measurement one after the other, and their results as a report."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.environment import environment
from bench.rows import Bench, Missing, Row
from bench.trees import find_tree

SCHEMA = 1
READERS = ("loader", "index")  # kinds that read files


@dataclass
class Report:
    """What was measured, and where.

    Attributes:
        environment: the machine, at the start.
        small: whether sizes were too small to judge by; goals are left out then.
        rows: one a measurement.
        missing: what could not be measured here.
    """

    environment: dict[str, Any]
    small: bool = False
    rows: list[Row] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def of(self, kind: str) -> "Report":
        """The part of one kind."""
        rows = [row for row in self.rows if row.kind == kind]
        return replace(self, rows=rows, missing=[line for line in self.missing if line.kind == kind])

    def as_json(self) -> dict[str, Any]:
        """Plain values: `schema`, `environment`, `small`, `rows` and `missing`."""
        return {
            "schema": SCHEMA,
            "environment": self.environment,
            "small": self.small,
            "rows": [row.as_json() for row in self.rows],
            "missing": [line._asdict() for line in self.missing],
        }


def measure(kind: str, bench: Bench, small: bool = False) -> Iterator[Row | Missing]:
    """The measurements of one kind, as they are made.

    Args:
        kind: one of `bench.KINDS`.
        bench: how.
        small: sizes that take seconds: they try the machinery and say nothing about the machine, so no goal is applied.
    """
    module = importlib.import_module(f"bench.{kind}")
    for found in module.measure(bench, **(module.SMALL if small else {})):
        yield replace(found, goal=None) if small and isinstance(found, Row) else found


def run(
    kinds: Sequence[str],
    bench: Bench,
    *,
    small: bool = False,
    started: Callable[[str], None] | None = None,
    finished: Callable[[str, Report], None] | None = None,
) -> Report:
    """Measure kind after kind.

    Args:
        kinds: of `bench.KINDS`.
        bench: how.
        small: see `measure`.
        started: hears of each kind that begins.
        finished: hears of each kind that ended, with the report so far.

    Raises:
        DataError: a folder that was named holds no VOC tree; before anything is measured.
    """
    if bench.data is not None and set(kinds) & set(READERS):
        find_tree(bench.data)
    report = Report(environment(bench.device), small)
    for kind in kinds:
        if started is not None:
            started(kind)
        for found in measure(kind, bench, small):
            if isinstance(found, Missing):
                report.missing.append(found)
            else:
                report.rows.append(found)
        if finished is not None:
            finished(kind, report)
    return report
