"""Scores of a run under the names that papers' tables give them."""

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from densecl.records.layout import layout_of
from densecl.records.published import PARTS, Reported
from densecl.records.record import Record
from densecl.tables.groupings import grouping
from densecl.tables.measure import PAPERS_NAMES, SHARES, TOP
from densecl.tables.scores import Scores

METRICS = {name: metric for metric, name in PAPERS_NAMES.items()}
ACCURACIES, SCORE = ("top-1 accuracy %", "mean top-1 accuracy %"), "decathlon score"
CLASS, PAIR = re.compile(r"IoU % of class (\d+)"), re.compile(r"tasks (\d+), (\d+)")
WITHOUT_GROUPING = "with-bg"  # of a run that no published row stands beside


class Run(NamedTuple):
    """A finished run."""

    record: Record
    folder: Path


def measure(run: Run, theirs: Reported, name: str) -> float | None:
    """The score of a run that a published row has under a name, in the row's unit; None if the run has none."""
    record, scores = run.record, Scores(run.record)
    task = theirs.task or 1
    if theirs.values is not None:
        return _mean(record, theirs.grouping or WITHOUT_GROUPING, name)
    if name in METRICS:
        return _of_task(record, task, METRICS[name], theirs.after or task)
    if name in (*ACCURACIES, SCORE):
        return _accuracy(record, task, name)
    if name == "MiB":
        return scores.size_added()
    if name == "MB":  # without last layers, as Mallya et al. count
        return (scores.sizes[-1] - _head_bytes(run.folder, record)) / 1e6 if scores.sizes else None
    if name == "times the parameters":
        return scores.sizes[-1] / scores.sizes[0] if scores.sizes else None
    if (found := CLASS.fullmatch(name)) is not None:
        return _percent(scores.by_step[-1].get(int(found[1])))
    if name == "new layers MB":
        return _head_bytes(run.folder, record) / 1e6
    if name == "mask MB":
        return _masks(run.folder).weights / 8e6
    if name == "zeros %":
        if task > len(record.tasks):
            return None
        return _percent(_masks(run.folder).zeros.get(record.tasks[task - 1].name))
    if (found := PAIR.fullmatch(name)) is not None:
        return _masks(run.folder).agreement.get(tuple(record.tasks[int(k) - 1].name for k in found.groups()))
    return None


def lacking(record: Record, theirs: Reported, name: str) -> str:
    """Why a run has no score of this name; empty where nothing is known."""
    task = theirs.task or 1
    if record.tasks and max(task, theirs.after or task) > len(record.tasks):
        return f"the sequence has {len(record.tasks)} tasks"
    if METRICS.get(name) == "top5_error":
        return f"top-5 errors are of tasks with more than {TOP} classes"
    return "the score is of the Decathlon's data sets" if name == SCORE else ""


def scores_of(record: Record) -> dict[str, float | None]:
    """The main scores of a run that no published row stands beside."""
    if not record.tasks:
        return {f"mIoU % of {part}": _mean(record, WITHOUT_GROUPING, part) for part in PARTS}
    return {
        f"task {k}, {PAPERS_NAMES.get(task.primary, task.primary)}": _of_task(record, k, task.primary, k)
        for k, task in enumerate(record.tasks, 1)
    }


def _mean(record: Record, group: str, part: str) -> float | None:
    """Mean IoU of base, added or all classes, in percent."""
    columns = grouping(group).columns(layout_of(record, [record]))
    return next((_percent(Scores(record).mean(column.labels)) for column in columns if column.part == part), None)


def _of_task(record: Record, task: int, metric: str, after: int) -> float | None:
    """A score of a task after one was learnt, both counted from 1."""
    if max(task, after) > len(record.tasks):
        return None
    value = Scores(record).of_task(record.tasks[task - 1], metric, after - 1)
    return _percent(value) if metric in SHARES else value


def _accuracy(record: Record, task: int, name: str) -> float | None:
    """The top-1 accuracy of a task or the mean of all, in percent, or the Decathlon's score, after own steps."""
    from densecl.metrics.decathlon import FINETUNED, decathlon_score

    wanted = [task] if name == ACCURACIES[0] else range(1, 1 + len(record.tasks))
    errors = [_of_task(record, k, "top1_error", k) for k in wanted]
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    if name != SCORE:
        return 100 - sum(known) / len(known)
    names = [own.name for own in record.tasks]
    if not {*names} & {*FINETUNED}:
        return None
    return decathlon_score({own: error / 100 for own, error in zip(names, known, strict=True)})


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


class Masks(NamedTuple):
    """The masks of a run."""

    weights: int  # that a mask has a bit for
    zeros: Mapping[str, float]  # share of each task
    agreement: Mapping[tuple[str, ...], float]  # share of equal values of two tasks


@cache
def _masks(folder: Path) -> Masks:
    from densecl.finished.inspect_masks import mask_figures

    figures = mask_figures(folder)
    weights, shares = figures.whole
    pairs = {(one, other): matching for one, other, matching, _ in figures.pairs}
    return Masks(weights, dict(zip(figures.tasks, shares, strict=True)), pairs)


def _head_bytes(folder: Path, record: Record) -> int:
    """Bytes of all heads, in single precision."""
    from safetensors import safe_open

    from densecl.runner.checkpoint import weights_path

    with safe_open(weights_path(folder, len(record.steps) - 1), framework="np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys() if name.startswith("heads.")]  # noqa: SIM118
    return 4 * sum(map(math.prod, shapes))
