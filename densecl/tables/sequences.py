"""Columns and values of sequences of tasks: each task's scores, what is forgotten of it, and what must be stored."""

from collections.abc import Sequence
from typing import Any

from densecl.records.layout import clean
from densecl.records.record import Record, TaskRecord
from densecl.tables.columns import Column, Values

MIB = 2**20
NAMES = {"miou": "mIoU", "mse": "MSE", "total_loss": "loss", "ssim": "SSIM"}
SECOND = {"colorization": "ssim", "style_transfer": "ssim", "autoencoding": "ssim"}  # beside the primary metric
REMARKS = (
    "mIoU in % of all classes of a task; every method is told the task, for which it has a head",
    "forgetting: the score when learnt against the last one, positive is worse",
    "size in MiB of all that performs the tasks: by formula from counts of numbers, and of a file of it",
)
PAPER = (
    "a task's score after its own step, then after later ones, as Matsumoto and Yanai have them",
    "size: MiB by formula; the total adds the rows after rounding, as the papers do",
)


def columns(records: Sequence[Record], per_step: bool, paper: bool) -> list[Column]:
    """The columns of a sequence's table: all scores, the matrix "task i after task j", or the papers' layout."""
    tasks = max((record.tasks for record in records), key=len)
    if per_step:
        return [_column(task, f" after {j + 1}") for i, task in enumerate(tasks) for j in range(i, len(tasks))]
    if paper:
        own = [column for task in tasks for column in (_column(task), *_second(task))]
        later = [_column(task, f" after {j + 1}") for j in range(1, len(tasks)) for task in tasks[:j]]
        sizes = [Column(f"size {part}", "number", "") for part in ("task 1", *(_further(len(tasks))), "total")]
        return [*own, *later, *sizes]
    result = [column for task in tasks for column in (_column(task), *_second(task))]
    result += [
        Column(f"{_name(task)} forgetting", "share" if task.primary == "miou" else "number", "lower")
        for task in tasks[:-1]
    ]
    return [*result, Column("size", "number", "lower"), Column("file", "number", "lower"), Column("time", "time")]


def measure(record: Record, paper: bool) -> Values:
    """Values by heading, of any of the layouts."""
    values: Values = {"time": sum(step.seconds for step in record.steps) if record.steps else None}
    for j, step in enumerate(record.steps):
        for i, evaluation in enumerate(step.evaluations[: len(record.tasks)]):
            task = record.tasks[i]
            score = _score(task, evaluation.metrics)
            values[_column(task, f" after {j + 1}").heading] = score
            shown = i == j if paper else j == len(record.steps) - 1
            if shown:
                values[_column(task).heading] = score
                for column in _second(task):
                    values[column.heading] = evaluation.metrics.get(SECOND[task.kind])
            if j == len(record.steps) - 1:
                values[f"{_name(task)} forgetting"] = evaluation.metrics.get("forgetting")
    return values | _sizes(record)


def _sizes(record: Record) -> Values:
    """Sizes by heading; totals of rounded rows where every step says its own."""
    models = [step.model for step in record.steps]
    known = [model.formula for model in models if model is not None and model.formula is not None]
    if not models or len(known) < len(models) or models[-1] is None:
        return {}
    rows = [(after - before) / MIB for before, after in zip([0, *known], known, strict=False)]
    values: Values = {"size": known[-1] / MIB, "file": models[-1].file / MIB, "size task 1": round(rows[0], 1)}
    for k, row in enumerate(rows[1:]):
        values[f"size task {k + 2}"] = round(row, 1)
    values["size total"] = round(sum(round(row, 1) for row in rows), 1)
    return values


def _further(tasks: int) -> list[str]:
    return [f"task {k + 1}" for k in range(1, tasks)]


def _name(task: TaskRecord) -> str:
    return clean(task.name)


def _column(task: TaskRecord, after: str = "") -> Column:
    """Of a task's primary metric."""
    share = task.primary == "miou"
    metric = "" if after else f" {NAMES.get(task.primary, clean(task.primary))}"
    better = "higher" if task.higher_is_better else "lower"
    return Column(f"{_name(task)}{metric}{after}", "share" if share else "number", better)


def _second(task: TaskRecord) -> list[Column]:
    """A further metric that papers print."""
    return [Column(f"{_name(task)} SSIM", "number", "higher")] if task.kind in SECOND else []


def _score(task: TaskRecord, metrics: dict[str, Any]) -> float | None:
    value = metrics.get(task.primary)
    return value.get("all") if isinstance(value, dict) else value
