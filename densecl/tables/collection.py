"""Records and tables as Python objects: to look at in a notebook, and as data frames."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from densecl.errors import DenseCLError
from densecl.records.record import Record, flatten
from densecl.tables.table import Table, rows

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]


class Tables(list[Table]):
    """Tables, one a benchmark; a notebook shows them."""

    def to_dataframe(self) -> "pandas.DataFrame":
        """A row per configuration and column: mean and standard deviation over seeds, shares as fractions of 1."""
        return frame(
            {
                "benchmark": table.benchmark,
                "strategy": row.strategy,
                "note": row.note,
                "backbone": row.backbone,
                "seeds": len(row.seeds),
                "column": column.heading,
                "mean": cell.mean,
                "std": cell.std,
            }
            for table in self
            for row in table.rows
            for column, cell in zip(table.columns, row.cells, strict=True)
        )

    def _repr_html_(self) -> str:
        from densecl.tables.forms.html import write

        return write(self)


class Records(Sequence[Record]):
    """The records of a folder, in order of their paths."""

    def __init__(self, records: Iterable[Record]):
        self._records = tuple(records)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "Records": ...
    def __getitem__(self, index: int | slice) -> "Record | Records":
        return Records(self._records[index]) if isinstance(index, slice) else self._records[index]

    def tables(self, *, per_step: bool = False, group: str | None = None) -> Tables:
        """The records as tables; `densecl.table` has more options, and refuses to mix what cannot be compared."""
        return Tables(rows(self._records, per_step, group=group))

    def to_dataframe(self) -> "pandas.DataFrame":
        """A row per run, step and task: scores by name (`miou.all`, `forgetting`), seconds, and what names the run."""
        return frame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the data frame."""
        result = []
        for record in self._records:
            run = {key: getattr(record, key) for key in ("benchmark", "strategy", "backbone", "seed", "hash", "status")}
            for step in record.steps:
                costs = {key: getattr(step, key) for key in ("iterations", "seconds", "shared", "stored_bytes")}
                for evaluation in step.evaluations:
                    scores = {key: value for key, value in evaluation.metrics.items() if key != "iou"}
                    result.append({**run, "step": step.step, "task": evaluation.task, **flatten(scores), **costs})
        return result

    def _repr_html_(self) -> str:
        return self.tables()._repr_html_()

    def __repr__(self) -> str:
        return f"Records({len(self)} runs)"


def records(
    folder: str | Path = "results",
    *,
    benchmark: Sequence[str] = (),
    complain: Callable[[str], None] | None = None,
) -> Records:
    """Read the records in and below a folder, of some benchmarks or all.

    `complain` is told of each record that cannot be read; None warns. RecordError where there are none,
    UnknownNameError for a benchmark of which nothing was run.
    """
    from densecl.tables.compare import read_runs

    tell = complain or warnings.warn
    files = read_runs(Path(folder), lambda fault: tell(f"left out: {fault}"), benchmark)
    return Records(record for _, record in sorted(files, key=lambda found: found.path))


def frame(content: "Iterable[dict[str, Any]]") -> "pandas.DataFrame":
    """Rows as a data frame; DenseCLError where pandas is not installed."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise DenseCLError("to_dataframe needs pandas, which is not installed", "pip install pandas") from error
    return pandas.DataFrame(list(content))
