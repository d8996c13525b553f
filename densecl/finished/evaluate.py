"""Score the kept weights of a run again, under its own or another evaluation preset."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from densecl.errors import RecordError, SettingError, UnknownNameError
from densecl.finished.trusted import read_run, trusted_settings
from densecl.metrics.iou import foreground_mean, harmonic_mean
from densecl.records.record import FILE_NAME, Evaluation, Record
from densecl.runner.build import build_scenario, restored
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import parse_method
from densecl.runner.plan import Plan, planned_steps, usable_device
from densecl.settings.backbone import backbone_class
from densecl.settings.catalogue import own_kinds
from densecl.settings.grammar import Call, format_spec
from densecl.settings.recipe import EvaluationSettings, RunSettings, build
from densecl.tables.groupings import groupings

PARTS = ("base", "all")  # means of a grouping that may count the background


class Scored(NamedTuple):
    """The evaluation of a step, and the record of the run; of a sequence, also the evaluations of all its tasks."""

    evaluation: Evaluation
    step: int
    record: Record
    all_tasks: tuple[Evaluation, ...] = ()


def parse_preset(text: str) -> EvaluationSettings:
    """`crop512` (shorter side 512, centre crop), `full` (whole image at its own resolution) or `size=N`."""
    match = re.fullmatch(r"full|(?:crop|size=)([1-9]\d*)", text)
    if match is None:
        raise SettingError(f"unknown evaluation preset '{text}'", "known: crop512, full, size=N")
    return EvaluationSettings(size="full" if match[1] is None else int(match[1]))


def plan_of(
    folder: Path,
    data: Path | None = None,
    device: str | None = None,
    catalogue: Path | None = None,
    **own: Any,
) -> tuple[Plan, Record]:
    """The plan of the run in a folder, and its record; `own` are classes outside the catalogue: `trusted_settings`."""
    record, path = read_run(folder), folder / FILE_NAME
    if record.foreign is not None:
        raise RecordError(f"{folder} has scores of another code's predictions, and no network")
    tree = trusted_settings(record, folder, **own)
    with _in_record(path):
        settings = build(RunSettings, tree, "settings", own_kinds(record.benchmark, catalogue))
    updates: dict[str, Any] = {"data": settings.data.model_copy(update={"root": data or settings.data.root})}
    if device is not None or (settings.device.startswith("cuda") and not torch.cuda.is_available()):
        updates["device"] = usable_device(device or "cpu")
    settings = settings.model_copy(update=updates)
    calls = [Call(settings.strategy, settings.strategy_values), *(Call(n, v) for n, v in settings.plugins.items())]
    parsed = parse_method(format_spec(tuple(calls)), catalogue)
    order = settings.stream.order
    if settings.stream.kind == "tasks":
        order = ()
    elif not isinstance(order, tuple):
        raise RecordError(f"{path}: 'settings.stream.order' must be the list that the run used")
    with _in_record(path):
        steps, body = planned_steps(settings.stream, len(order)), backbone_class(settings.backbone)
    return Plan(settings, parsed, steps, folder, body, trusted=own.get("data_set") is not None), record


@contextlib.contextmanager
def _in_record(path: Path) -> Iterator[None]:
    """Name the record whose settings are refused."""
    try:
        yield
    except SettingError as error:
        raise RecordError(f"{path}: {error}") from error


def reevaluate(
    folder: Path,
    *,
    step: int | None = None,
    task: str | None = None,
    preset: str | None = None,
    data: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    catalogue: Path | None = None,
    **own: Any,
) -> Scored:
    """Evaluate the weights of a finished step; heads grow as they did, nothing is trained. `own`: see `plan_of`.

    Forgetting compares with the record's IoU, so it is known only under the run's own preset.
    """
    plan, record = plan_of(Path(folder), data, device, catalogue, **own)
    recorded = evaluation = plan.settings.evaluation
    if preset is not None:
        evaluation = recorded.model_copy(update={"size": parse_preset(preset).size})
        plan = replace(plan, settings=plan.settings.model_copy(update={"evaluation": evaluation}))
    step = finished_step(folder, record, step)
    learnt = [evaluation.task for evaluation in record.steps[step].evaluations] if record.tasks else []
    if task is not None and task not in learnt:
        raise UnknownNameError("task", task, learnt, f"it was not learnt by step {step}")
    scenario, own_workers = build_scenario(plan)
    loop = restored(plan, scenario, Path(folder), step, record.hash)
    workers = own_workers if workers is None else workers
    before = record.steps if evaluation == recorded else []
    evaluations = evaluate(loop, step, recorded.batch, workers, before, recorded)
    evaluations = [evaluation for evaluation in evaluations if task in (None, evaluation.task)]
    return Scored(evaluations[-1], step, record, tuple(evaluations) if record.tasks else ())


def finished_step(folder: Path, record: Record, step: int | None) -> int:
    """Check that a step is finished; by default the last one."""
    last = len(record.steps) - 1
    step = last if step is None else step
    if not 0 <= step <= last:
        raise SettingError(
            f"{folder} has finished steps 0 to {last}, not {step}" if record.steps else f"{folder} has no finished step"
        )
    return step


def summary(scored: Scored) -> str:
    """The evaluation as text: groups, forgetting, then each class; of a sequence, each task's scores."""
    lines = [f"{scored.record.benchmark}  {scored.record.strategy}  after step {scored.step}"]
    for evaluation in scored.all_tasks:
        lines += ["", evaluation.task]
        for name, value in evaluation.metrics.items():
            if name == "miou":
                lines.append(f"  {'mIoU':16} {_percent(value['all'])}")
            elif name != "iou":
                lines.append(f"  {name:16} " + ("-" if value is None else f"{value:.4g}"))
    if scored.all_tasks:
        return "\n".join(lines)
    metrics = scored.evaluation.metrics
    lines += [f"{name:10} {_percent(value)}" for name, value in metrics["miou"].items()]
    lines += [f"{'forgetting':10} {_percent(metrics['forgetting'])}", "", *_groupings(scored), ""]
    names = scored.record.class_names
    lines += [f"{label:3} {names[label]:16} {_percent(value)}" for label, value in enumerate(metrics["iou"])]
    return "\n".join(lines)


def _groupings(scored: Scored) -> list[str]:
    """Base, added and all in each grouping of the field."""
    record, iou = scored.record, scored.evaluation.metrics["iou"]
    groups = record.planned_steps or [done.new_classes for done in record.steps]
    groups = groups[: None if len(record.steps) == 1 else scored.step + 1]  # joint: one step for all
    base, added = groups[0], [label for group in groups[1:] for label in group]
    lines = ["grouping       base  added    all"]
    for group in groupings():
        if not group.extra_over_steps:
            background = {part: [0] if record.has_background and part in group.background else [] for part in PARTS}
            old = foreground_mean(iou, base + background["base"], background=True)
            overall = foreground_mean(iou, base + added + background["all"], background=True)
            new = foreground_mean(iou, added) if added else None
            third = f"  harmonic mean {_percent(harmonic_mean(old, new))}" if group.extra else ""
            lines.append(f"{group.name:12} {_percent(old)}  {_percent(new)}  {_percent(overall)}{third}")
    return lines


def _percent(value: float | None) -> str:
    return "    -" if value is None else f"{round(100 * value, 1) + 0.0:5.1f}"  # + 0.0: no -0.0
