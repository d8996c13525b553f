"""The columns of a table, each with the function that reads its value from the scores of a run.

A class-incremental stream is one task, with columns by range of classes; a sequence has columns for each of its tasks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from densecl.records.layout import Layout, clean, ranges
from densecl.records.record import Record, TaskRecord
from densecl.tables import relative
from densecl.tables.columns import Column
from densecl.tables.groupings import Grouping, Means
from densecl.tables.scores import Scores, segmentation

METRIC_NAMES = {
    "miou": "mIoU", "mse": "MSE", "total_loss": "loss", "ssim": "SSIM", "absolute": "abs", "relative": "rel",
    "rmse": "RMSE", "delta1": "< 1.25", "delta2": "< 1.25^2", "delta3": "< 1.25^3", "within_11.25": "< 11.25",
    "within_22.5": "< 22.5", "within_30": "< 30", "top1_error": "top-1 err", "top5_error": "top-5 err",
}  # fmt: skip
PAPERS_NAMES = {
    "miou": "mIoU %",
    "mse": "MSE",
    "total_loss": "total loss",
    "ssim": "SSIM",
    "top1_error": "top-1 error %",
    "top5_error": "top-5 error %",
}  # in files of published numbers
# beside the primary metric
SECOND = {
    "colorization": "ssim", "style_transfer": "ssim", "autoencoding": "ssim", "depth": "relative", "normals": "median",
    "classification": "top5_error",
}  # fmt: skip
TOP = 5  # guesses of top5_error, which a task of no more classes does not have
HIGHER = {"ssim"}  # of these, those of which more is better
# what HAD and the papers on several tasks print of a kind, after the primary metric
FURTHER: dict[str, tuple[str, ...]] = {
    "depth": ("relative", "rmse", "delta1", "delta2", "delta3"),
    "normals": ("median", "within_11.25", "within_22.5", "within_30"),
}
PARTS = {"delta1", "delta2", "delta3", "within_11.25", "within_22.5", "within_30"}  # of pixels, more is better
SHARES = {"miou", *PARTS, "top1_error", "top5_error"}
IMAGE_LEVEL = {"classification"}  # kinds of task that say one thing of a whole image


class View(NamedTuple):
    """Options of a table that choose its columns."""

    grouping: Grouping  # how classes are averaged
    labels: str | None = None  # label preset by which classes not learnt yet are scored; None: as recorded
    per_step: bool = False  # scores after each step, instead of all scores after the last one
    paper: bool = (
        False  # sequences of tasks in the layout of papers: Matsumoto and Yanai's; HAD's, of depth and normals
    )
    per_class: bool = False  # IoU of each class after the last step, instead of all scores


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
    if view.per_class:
        from densecl.tables import per_class

        pairs = per_class.of_tasks(tasks) if tasks else per_class.of_classes(layout, records)
        return [Measure(*pair) for pair in pairs]
    if view.per_step and tasks:
        return [_after(tasks, own, step) for own in range(len(tasks)) for step in range(own, len(tasks))]
    if view.per_step:
        return _classes_after_steps(layout, records, view)
    if view.paper and tasks:
        return _had(tasks, records) if _in_rooms(tasks) else _paper(tasks)
    if tasks:
        scores = _in_one_number(tasks, records)
        scores += [measure for own in range(len(tasks)) for measure in _own_scores(tasks, own)]
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
    if view.per_class:
        from densecl.tables import per_class

        return [per_class.about(layout, records)]
    tasks = max((record.tasks for record in records), key=len)
    if tasks and view.paper and _in_rooms(tasks):
        return [
            "after the last task: mIoU in %, depth errors in metres, shares of pixels in %, angles in degrees, as HAD",
            *_about_delta(tasks, records),
        ]
    if tasks and view.paper:
        return [
            "a task's score after its own step, then after later ones, as Matsumoto and Yanai have them",
            "size: MiB by formula; the total adds the rows after rounding, as the papers do",
        ]
    if tasks:
        return [
            *([] if view.per_step else _about_delta(tasks, records)),
            *_about_tasks(tasks),
            "a task's forgetting: the score when learnt against the last one, positive is worse",
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


def _in_one_number(tasks: Sequence[TaskRecord], records: Sequence[Record]) -> list[Measure]:
    """The change against networks that learn a task alone, and forgetting, over all tasks."""
    delta = partial(relative.delta, tasks=tasks, reference=relative.alone(tasks, records))
    measures = [Measure(Column("Δm", "share", "higher"), delta)]
    if len(tasks) > 1:
        measures.append(Measure(Column("forgetting", "share", "lower"), partial(relative.forgotten, tasks=tasks)))
    return measures


def _about_delta(tasks: Sequence[TaskRecord], records: Sequence[Record]) -> list[str]:
    """Footnotes about the columns in one number."""
    alone = relative.ALONE
    delta = f"Δm: mean over tasks of the relative change against {alone}, in %, positive is better"
    forgetting = "mean over earlier tasks of the relative loss since a task was learnt, in %, positive is worse"
    notes = [delta if relative.alone(tasks, records) else f"no run of {alone}, so no Δm"]
    return [*notes, *([f"forgetting: {forgetting}"] if len(tasks) > 1 else [])]


def _about_tasks(tasks: Sequence[TaskRecord]) -> list[str]:
    """Footnotes on what the scores of tasks count."""
    whole = ", ".join(clean(task.name) for task in tasks if task.kind in IMAGE_LEVEL)
    notes = [f"image-level: {whole}; errors in % of the test images, lower is better"] if whole else []
    told = "every method is told the task, for which it has a head"
    dense = any(task.kind not in IMAGE_LEVEL for task in tasks)
    return [*notes, f"mIoU in % of all classes of a task; {told}" if dense else told]


def _score(tasks: Sequence[TaskRecord], own: int, heading: str, metric: str, step: int = -1, **changes: Any) -> Measure:
    """A task's score after a step, by default the last one, in a column of its primary metric but for the `changes`."""
    task = tasks[own]
    kind = "share" if (task.primary if metric == "forgetting" else metric) in SHARES else "number"
    score = (own + 1, PAPERS_NAMES.get(metric), range(len(tasks))[step] + 1)
    better = "higher" if task.higher_is_better else "lower"
    column = Column(f"{clean(task.name)} {heading}", kind, better, score=score)
    return Measure(column._replace(**changes), partial(Scores.of_task, task=task, metric=metric, step=step))


def _own_scores(tasks: Sequence[TaskRecord], own: int, step: int = -1) -> list[Measure]:
    """The primary metric and, where papers print one, a second."""
    task = tasks[own]
    scores = [_score(tasks, own, METRIC_NAMES.get(task.primary, clean(task.primary)), task.primary, step)]
    if (metric := SECOND.get(task.kind)) and (task.kind not in IMAGE_LEVEL or len(task.class_names) > TOP):
        better = "higher" if metric in HIGHER else "lower"
        kind = "share" if metric in SHARES else "number"
        scores.append(_score(tasks, own, METRIC_NAMES.get(metric, metric), metric, step, kind=kind, better=better))
    return scores


def _in_rooms(tasks: Sequence[TaskRecord]) -> bool:
    """True if a task is one of those that HAD has beside segmentation."""
    return any(task.kind in FURTHER for task in tasks)


def _had(tasks: Sequence[TaskRecord], records: Sequence[Record]) -> list[Measure]:
    """All scores of each task after the last step, then the numbers over all tasks."""
    scores = []
    for own, task in enumerate(tasks):
        scores.append(_own_scores(tasks, own)[0])
        for metric in FURTHER.get(task.kind, ()):
            better = "higher" if metric in PARTS else "lower"
            scores.append(_score(tasks, own, METRIC_NAMES.get(metric, metric), metric, better=better))
    return [*scores, *_in_one_number(tasks, records)]


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
