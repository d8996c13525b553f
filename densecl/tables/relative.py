"""Scores of a sequence in one number: mean relative changes over its tasks, whose metrics have units of their own."""

import json
import statistics
from collections.abc import Mapping, Sequence

from densecl.records.layout import main_name
from densecl.records.record import Record, TaskRecord
from densecl.tables.group import configurations
from densecl.tables.scores import Scores

ALONE = "scratch"  # the strategy that learns each task with a network of its own
Alone = Mapping[str, Mapping[str, float]]  # by backbone and task: the score of a network that learnt the task alone


def alone(tasks: Sequence[TaskRecord], records: Sequence[Record]) -> Alone:
    """The primary scores of finished runs of `scratch`, averaged over seeds; of several set-ups that of most seeds."""
    runs = [r for r in records if main_name(r.strategy) == ALONE and "+" not in r.strategy and r.status == "finished"]
    found: dict[str, dict[str, float]] = {}
    for configuration in sorted(configurations(runs), key=lambda row: -len(row.runs)):
        scores = [Scores(run) for run in configuration.runs]
        means = {}
        for task in tasks:
            known = [value for own in scores if (value := own.of_task(task, task.primary)) is not None]
            if known:
                means[task.name] = statistics.fmean(known)
        found.setdefault(_network(configuration.runs[0]), means)
    return found


def delta(scores: Scores, *, tasks: Sequence[TaskRecord], reference: Alone) -> float | None:
    """Mean over tasks of (score - alone) / alone after the last step, negated where lower is better.

    Delta_m of Maninis et al. (CVPR 2019) and Vandenhende et al. (TPAMI 2021), with one metric a task. None before all
    tasks are learnt, and where a network alone has no score or 0.
    """
    own = reference.get(_network(scores.record), {})
    return _mean([_change(task, own.get(task.name), scores.of_task(task, task.primary)) for task in tasks])


def forgotten(scores: Scores, *, tasks: Sequence[TaskRecord]) -> float | None:
    """Mean over all tasks but the last of the relative loss since a task was learnt; positive is worse."""
    earlier = tasks[:-1]
    pairs = [(scores.of_task(t, t.primary, k), scores.of_task(t, t.primary)) for k, t in enumerate(earlier)]
    complete = len(scores.record.steps) == len(tasks)
    mean = _mean([_change(task, *pair) for task, pair in zip(earlier, pairs, strict=True)]) if complete else None
    return None if mean is None else -mean + 0.0


def _change(task: TaskRecord, before: float | None, after: float | None) -> float | None:
    """Relative, positive is better."""
    if not before or after is None:
        return None
    change = (after - before) / abs(before)
    return change if task.higher_is_better else -change


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _network(record: Record) -> str:
    """Text that tells one backbone from another."""
    return json.dumps([record.backbone, record.settings.get("backbone_values")], sort_keys=True)
