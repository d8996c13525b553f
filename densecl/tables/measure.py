"""The columns of a table, each with the function that reads its value from the scores of a run.

A class-incremental stream is one task, with columns by range of classes; a sequence has columns for each of its tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from densecl.records.layout import Layout, clean, ranges
from densecl.records.record import Record, TaskRecord
from densecl.tables.columns import Column
from densecl.tables.groupings import Grouping
from densecl.tables.scores import Scores, lacks_confusion

METRIC_NAMES = {"miou": "mIoU", "mse": "MSE", "total_loss": "loss", "ssim": "SSIM"}
SECOND = {"colorization": "ssim", "style_transfer": "ssim", "autoencoding": "ssim"}  # beside the primary metric


class BothMeans(Grouping):
    """The columns of tables without `--group`: all classes with background and, beside it, without."""

    background_in_base = False

    def columns(self, layout: Layout) -> list[Column]:
        """A further column where there is a background."""
        foreground = Column("all fg", "share", "higher", layout.classes, "all")
        return [*super().columns(layout), *([foreground] if layout.has_background else [])]


@dataclass(frozen=True)
class View:
    """Options of a table that choose its columns.

    Attributes:
        grouping: how classes are averaged.
        labels: label preset by which classes not learnt yet are scored; None: as recorded.
        per_step: scores after each step, instead of all scores after the last one.
        paper: sequences of tasks in the layout of Matsumoto and Yanai's tables.
    """

    grouping: Grouping
    labels: str | None = None
    per_step: bool = False
    paper: bool = False

    def everything(self, layout: Layout) -> tuple[int, ...]:
        """The labels that count in the mean of all."""
        return layout.with_background(layout.classes, self.grouping.background_in_all)


class Measure(NamedTuple):
    """A column, and its value for a run."""

    column: Column
    value: Callable[[Scores], float | None]


TIME = Measure(Column("time", "time"), Scores.seconds)


def measures(layout: Layout, records: Sequence[Record], view: View) -> list[Measure]:
    """The columns of a benchmark's table."""
    tasks = max((record.tasks for record in records), key=len)
    if not tasks:
        return _steps_of_classes(layout, records, view) if view.per_step else _classes(layout, records, view)
    if view.per_step:
        return [_task_after(task, step) for own, task in enumerate(tasks) for step in range(own, len(tasks))]
    return _paper(tasks) if view.paper else _tasks(tasks)


def remarks(layout: Layout, records: Sequence[Record], view: View) -> list[str]:
    """How the columns of a benchmark's table count."""
    if records[0].tasks and view.paper:
        return [
            "a task's score after its own step, then after later ones, as Matsumoto and Yanai have them",
            "size: MiB by formula; the total adds the rows after rounding, as the papers do",
        ]
    if records[0].tasks:
        return [
            "mIoU in % of all classes of a task; every method is told the task, for which it has a head",
            "forgetting: the score when learnt against the last one, positive is worse",
            "size in MiB of all that performs the tasks: by formula from counts of numbers, and of a file of it",
        ]
    result = [_counted_classes(layout, view)]
    if view.labels is not None:
        result.append(f"classes not learnt yet are scored as under {view.labels}, whatever a run was scored with")
        without = sum(lacks_confusion(record) for record in records)
        if without:
            result.append(f"{without} runs kept no confusion matrix and cannot be scored under {view.labels}")
    return result


# ---- classes that arrive over time


def _classes(layout: Layout, records: Sequence[Record], view: View) -> list[Measure]:
    """Ranges of classes after the last step."""
    result = [_class_mean(column) for column in view.grouping.columns(layout)]
    if view.grouping.extra:
        result.append(_extra(layout, view))
    result.append(Measure(Column("forgetting", "share", "lower"), lambda scores: scores.last.forgetting))
    others = dict.fromkeys(column for record in records for column in Scores(record).others)
    return [*result, *(Measure(column, _other(column)) for column in others), TIME]


def _class_mean(column: Column) -> Measure:
    return Measure(column, lambda scores: scores.last.mean(column.labels))


def _other(column: Column) -> Callable[[Scores], float | None]:
    return lambda scores: scores.others.get(column)


def _extra(layout: Layout, view: View) -> Measure:
    """The further column of a grouping; a run that takes the stream as one step has no means over steps."""
    labels = {column.part: column.labels for column in view.grouping.columns(layout)}

    def value(scores: Scores) -> float | None:
        base, added = (scores.last.mean(labels.get(part, ())) for part in ("base", "added"))
        after_steps = [] if scores.is_joint else scores.means(view.everything(layout))
        return view.grouping.extra_value(base, added, after_steps)

    return Measure(Column(view.grouping.extra, "share", "higher"), value)


def _steps_of_classes(layout: Layout, records: Sequence[Record], view: View) -> list[Measure]:
    """The mean of all classes seen so far, after each step."""
    count = max([len(layout.steps), *(len(record.steps) for record in records)])
    extra = [_extra(layout, view)] if view.grouping.extra_over_steps else []
    return [*(_all_after(view.everything(layout), step, count) for step in range(count)), *extra]


def _all_after(labels: Sequence[int], step: int, count: int) -> Measure:
    """The mean after a step; a run that takes the stream as one step stands at its end."""

    def value(scores: Scores) -> float | None:
        means = scores.means(labels)
        if scores.is_joint:
            means = [None] * (count - len(means)) + means
        return means[step] if step < len(means) else None

    return Measure(Column(f"step {step}", "share", "higher"), value)


def _counted_classes(layout: Layout, view: View) -> str:
    group, everything = view.grouping, view.everything(layout)
    if view.per_step:
        return f"mIoU in % of all classes seen so far{', background counted' if 0 in everything else ''}"
    parts = [f"mIoU in %, {group.name}: {group.summary}" if group.name else "mIoU in %"]
    for column in group.columns(layout) if layout.classes else ():
        if column.part == "all":
            zero = ", 0 is background" if 0 in column.labels else ""
            parts.append(f"{column.heading}: {ranges(column.labels)}{zero}")
    return "; ".join(parts)


# ---- tasks that follow each other


def _tasks(tasks: Sequence[TaskRecord]) -> list[Measure]:
    """Scores after the last step, forgetting, and sizes."""
    scored = [measure for task in tasks for measure in _own_scores(task, -1)]
    return [
        *scored,
        *(_task_forgetting(task) for task in tasks[:-1]),
        Measure(Column("size", "number", "lower"), Scores.size),
        Measure(Column("file", "number", "lower"), Scores.file_size),
        TIME,
    ]


def _paper(tasks: Sequence[TaskRecord]) -> list[Measure]:
    """Scores after each task's own step, then after later ones, and the sizes that each step adds."""
    own = [measure for step, task in enumerate(tasks) for measure in _own_scores(task, step)]
    later = [_task_after(task, step) for step in range(1, len(tasks)) for task in tasks[:step]]
    total = Measure(
        Column("size total", "number"), lambda scores: round(sum(scores.growth), 1) if scores.growth else None
    )
    return [*own, *later, *(_size_of(step) for step in range(len(tasks))), total]


def _own_scores(task: TaskRecord, step: int) -> list[Measure]:
    """The primary metric and, where papers print one, a second."""
    column = _column(task, f" {METRIC_NAMES.get(task.primary, clean(task.primary))}")
    result = [Measure(column, lambda scores: scores.of_task(task, task.primary, step))]
    if task.kind in SECOND:
        column = Column(f"{clean(task.name)} {METRIC_NAMES[SECOND[task.kind]]}", "number", "higher")
        result.append(Measure(column, lambda scores: scores.of_task(task, SECOND[task.kind], step)))
    return result


def _task_after(task: TaskRecord, step: int) -> Measure:
    return Measure(_column(task, f" after {step + 1}"), lambda scores: scores.of_task(task, task.primary, step))


def _task_forgetting(task: TaskRecord) -> Measure:
    column = _column(task, " forgetting")._replace(better="lower")
    return Measure(column, lambda scores: scores.of_task(task, "forgetting"))


def _column(task: TaskRecord, ending: str) -> Column:
    kind = "share" if task.primary == "miou" else "number"
    return Column(f"{clean(task.name)}{ending}", kind, "higher" if task.higher_is_better else "lower")


def _size_of(step: int) -> Measure:
    column = Column(f"size task {step + 1}", "number")
    return Measure(column, lambda scores: scores.growth[step] if step < len(scores.growth) else None)
