"""The columns of a table, each with the function that reads its value from the scores of a run.

A class-incremental stream is one task, with columns by range of classes; a sequence has columns for each of its tasks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from densecl.records.layout import Layout, clean, ranges
from densecl.records.record import Record, TaskRecord
from densecl.tables.columns import Column
from densecl.tables.groupings import Grouping, Means
from densecl.tables.scores import Scores, segmentation

METRIC_NAMES = {"miou": "mIoU", "mse": "MSE", "total_loss": "loss", "ssim": "SSIM"}
PAPERS_NAMES = {
    "miou": "mIoU %",
    "mse": "MSE",
    "total_loss": "total loss",
    "ssim": "SSIM",
}  # in files of published numbers
SECOND = {"colorization": "ssim", "style_transfer": "ssim", "autoencoding": "ssim"}  # beside the primary metric


class View(NamedTuple):
    """Options of a table that choose its columns."""

    grouping: Grouping  # how classes are averaged
    labels: str | None = None  # label preset by which classes not learnt yet are scored; None: as recorded
    per_step: bool = False  # scores after each step, instead of all scores after the last one
    paper: bool = False  # sequences of tasks in the layout of Matsumoto and Yanai's tables


class BothMeans(Grouping):
    """All classes with background and, beside it, without: the columns without `--group`."""

    background = ("all",)

    def columns(self, layout: Layout) -> list[Column]:
        """A further column where there is a background."""
        foreground = Column("all fg", "share", "higher", layout.classes, "all")
        return [*super().columns(layout), *([foreground] if layout.has_background else [])]


class Measure(NamedTuple):
    """A column, and its value for a run."""

    column: Column
    value: Callable[[Scores], float | None]


def measures(layout: Layout, records: Sequence[Record], view: View) -> list[Measure]:
    """The columns of a benchmark's table: all scores, the scores after each step, or a paper's layout."""
    tasks = max((record.tasks for record in records), key=len)
    if view.per_step and tasks:
        return [_after(tasks, own, step) for own in range(len(tasks)) for step in range(own, len(tasks))]
    if view.per_step:
        return _classes_after_steps(layout, records, view)
    if view.paper and tasks:
        return _paper(tasks)
    if tasks:
        scores = [measure for own in range(len(tasks)) for measure in _own_scores(tasks, own)]
        scores += [_score(tasks, own, "forgetting", "forgetting", better="lower") for own in range(len(tasks) - 1)]
    else:
        others = dict.fromkeys(column for record in records for column in Scores(record).of_others)
        scores = [
            *(Measure(column, partial(Scores.mean, labels=column.labels)) for column in view.grouping.columns(layout)),
            *([_extra(layout, view)] if view.grouping.extra else []),
            Measure(Column("forgetting", "share", "lower"), Scores.forgetting),
            *(Measure(column, lambda scores, column=column: scores.of_others.get(column)) for column in others),
        ]
    return [
        *scores,
        Measure(Column("size", "number", "lower", score=(None, "MiB", len(tasks))), Scores.size),
        Measure(Column("file", "number", "lower"), Scores.file_size),
        Measure(Column("time", "time"), Scores.seconds),
    ]


def counting(layout: Layout, records: Sequence[Record], view: View) -> list[str]:
    """Footnotes about what the columns of a benchmark's table count."""
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
    if view.labels is None:
        return [_counted_classes(layout, view)]
    scored = f"classes not learnt yet are scored as under {view.labels}, whatever a run was scored with"
    scored_steps = [[e for step in record.steps if (e := segmentation(step))] for record in records]
    without = sum(any(evaluation.confusion is None for evaluation in steps) for steps in scored_steps)
    lack = f"{without} runs kept no confusion matrix and cannot be scored under {view.labels}"
    return [_counted_classes(layout, view), scored, *([lack] if without else [])]


# ---- classes that arrive over time


def _classes_after_steps(layout: Layout, records: Sequence[Record], view: View) -> list[Measure]:
    """The mean of all classes seen so far, after each step."""
    last = max([len(layout.steps), *(len(record.steps) for record in records)]) - 1
    labels = view.grouping.everything(layout)
    after = [
        Measure(Column(f"step {step}", "share", "higher"), partial(Scores.mean_at, labels=labels, step=step, last=last))
        for step in range(last + 1)
    ]
    return [*after, *([_extra(layout, view)] if view.grouping.extra_over_steps else [])]


def _extra(layout: Layout, view: View) -> Measure:
    """The further column of a grouping; a run that takes the stream as one step has no means over steps."""
    labels = {column.part: column.labels for column in view.grouping.columns(layout)}
    everything = view.grouping.everything(layout)

    def value(scores: Scores) -> float | None:
        base, added = (scores.mean(labels.get(part, ())) for part in ("base", "added"))
        steps = () if scores.is_joint else range(len(scores.by_step))
        return view.grouping.extra_value(Means(base, added, [scores.mean(everything, step) for step in steps]))

    return Measure(Column(view.grouping.extra, "share", "higher"), value)


def _counted_classes(layout: Layout, view: View) -> str:
    group = view.grouping
    if view.per_step:
        zero = ", background counted" if 0 in view.grouping.everything(layout) else ""
        return f"mIoU in % of all classes seen so far{zero}"
    parts = [f"mIoU in %, {group.name}: {group.summary}" if group.name else "mIoU in %"]
    for column in group.columns(layout) if layout.classes else ():
        if column.part == "all":
            zero = ", 0 is background" if 0 in column.labels else ""
            parts.append(f"{column.heading}: {ranges(column.labels)}{zero}")
    return "; ".join(parts)


# ---- tasks that follow each other


def _score(tasks: Sequence[TaskRecord], own: int, heading: str, metric: str, step: int = -1, **changes: Any) -> Measure:
    """A task's score after a step, by default the last one, in a column of its primary metric but for the `changes`."""
    task = tasks[own]
    kind = "share" if task.primary == "miou" else "number"
    score = (own + 1, PAPERS_NAMES.get(metric), range(len(tasks))[step] + 1)
    better = "higher" if task.higher_is_better else "lower"
    column = Column(f"{clean(task.name)} {heading}", kind, better, score=score)
    return Measure(column._replace(**changes), partial(Scores.of_task, task=task, metric=metric, step=step))


def _own_scores(tasks: Sequence[TaskRecord], own: int, step: int = -1) -> list[Measure]:
    """The primary metric and, where papers print one, a second."""
    task = tasks[own]
    scores = [_score(tasks, own, METRIC_NAMES.get(task.primary, clean(task.primary)), task.primary, step)]
    if task.kind in SECOND:
        metric = SECOND[task.kind]
        scores.append(_score(tasks, own, METRIC_NAMES[metric], metric, step, kind="number", better="higher"))
    return scores


def _after(tasks: Sequence[TaskRecord], own: int, step: int) -> Measure:
    return _score(tasks, own, f"after {step + 1}", tasks[own].primary, step)


def _paper(tasks: Sequence[TaskRecord]) -> list[Measure]:
    """Scores after each task's own step, then after later ones, and the sizes that each step adds."""
    steps = range(len(tasks))
    return [
        *(measure for step in steps for measure in _own_scores(tasks, step, step)),
        *(_after(tasks, own, step) for step in steps for own in range(step)),
        *(Measure(Column(f"size task {k + 1}", "number"), partial(Scores.size_added, step=k)) for k in steps),
        Measure(Column("size total", "number", score=(None, "MiB", len(tasks))), Scores.size_added),
    ]
