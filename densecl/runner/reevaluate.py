"""Scoring the kept weights of a run again, under its own or another evaluation preset."""

import re
from pathlib import Path
from typing import NamedTuple

import torch

from densecl.errors import RecordError, SettingError
from densecl.recipe import EvaluationSettings, RunSettings
from densecl.reporting.record import FILE_NAME, Evaluation, Record, read_record
from densecl.runner.build import build_network, build_scenario, build_strategy
from densecl.runner.checkpoint import load_weights
from densecl.runner.evaluation import confusion, ious, score
from densecl.runner.methods import parse_method
from densecl.runner.plan import Plan
from densecl.spec import Call, format_spec


class Scored(NamedTuple):
    """An evaluation, the step it is of, and the record of the run."""

    evaluation: Evaluation
    step: int
    record: Record


def parse_preset(text: str) -> EvaluationSettings:
    """`crop512` (shorter side 512, centre crop), `full` (whole image at its own resolution) or `size=N`.

    Raises:
        SettingError: anything else.
    """
    if text == "full":
        return EvaluationSettings(size="full")
    match = re.fullmatch(r"(?:crop|size=)([1-9]\d*)", text)
    if match is None:
        raise SettingError(f"unknown evaluation preset '{text}'", "known: crop512, full, size=N")
    return EvaluationSettings(size=int(match[1]))


def plan_of(folder: Path, data: Path | None = None, device: str | None = None) -> tuple[Plan, Record]:
    """The plan that a run folder was made by.

    Raises:
        RecordError: no readable record there.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise RecordError(f"{folder} is not a run: it has no {FILE_NAME}", "name the folder of one run")
    record = read_record(path)
    settings = RunSettings.model_validate(record.settings)
    updates = {"data": settings.data.model_copy(update={"root": data or settings.data.root})}
    if device is not None or (settings.device.startswith("cuda") and not torch.cuda.is_available()):
        updates["device"] = device or "cpu"  # type: ignore[assignment]
    settings = settings.model_copy(update=updates)
    calls = [Call(settings.strategy, settings.strategy_values), *(Call(n, v) for n, v in settings.plugins.items())]
    order = iter(settings.stream.order)  # type: ignore[arg-type]
    steps = tuple(tuple(next(order) for _ in group) for group in record.planned_steps)
    return Plan(settings, parse_method(format_spec(tuple(calls))), steps, folder), record


def reevaluate(
    folder: Path,
    *,
    step: int | None = None,
    preset: str | None = None,
    data: Path | None = None,
    device: str | None = None,
    workers: int | None = None,
) -> Scored:
    """Evaluate the weights of a finished step; heads grow as they did, nothing is trained.

    Raises:
        RecordError, RunError, SettingError: no such run, step, weights or preset.
    """
    plan, record = plan_of(Path(folder), data, device)
    if preset is not None:
        evaluation = parse_preset(preset)
        plan = Plan(plan.settings.model_copy(update={"evaluation": evaluation}), plan.method, plan.steps, plan.output)
    last = len(record.steps) - 1
    step = last if step is None else step
    if not 0 <= step <= last:
        raise SettingError(
            f"{folder} has finished steps 0 to {last}, not {step}" if record.steps else f"{folder} has no finished step"
        )
    scenario, found = build_scenario(plan)
    settings = plan.settings
    if "weights" in settings.backbone_values:  # the kept weights replace them: do not download
        values = {**settings.backbone_values, "weights": "none"}
        settings = settings.model_copy(update={"backbone_values": values})
    network = build_network(settings)
    strategy = build_strategy(plan, scenario, network)
    for experience in list(scenario.train_stream)[: step + 1]:
        strategy.grow(experience)
    load_weights(network, Path(folder), step, torch.device(plan.settings.device))
    workers = found if workers is None else workers
    matrix = confusion(strategy, scenario.test, len(scenario.class_names), plan.settings.evaluation.batch, workers)
    return Scored(score(matrix, scenario, step, ious(record.steps)), step, record)


def summary(scored: Scored) -> str:
    """The evaluation as text: groups, forgetting, then each class."""
    metrics = scored.evaluation.metrics
    lines = [f"{scored.record.benchmark}  {scored.record.strategy}  after step {scored.step}"]
    lines += [f"{name:10} {_percent(value)}" for name, value in metrics["miou"].items()]
    lines += [f"{'forgetting':10} {_percent(metrics['forgetting'])}", ""]
    names = scored.record.class_names
    lines += [f"{label:3} {names[label]:16} {_percent(value)}" for label, value in enumerate(metrics["iou"])]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "   -" if value is None else f"{100 * value:5.1f}"
