"""The record of foreign predictions: the matrices and the stream are ours, all else is declared."""

import hashlib
import inspect
import json
import re
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from densecl import __version__
from densecl.errors import SpecError
from densecl.finished.about import About
from densecl.finished.foreign_network import ForeignNetwork
from densecl.metrics.iou import class_metrics
from densecl.records.foreign import Foreign
from densecl.records.layout import clean
from densecl.records.record import Evaluation, Record, StepRecord
from densecl.runner.plan import Plan
from densecl.settings.catalogue import source_hash
from densecl.settings.grammar import parse_one
from densecl.streams.scenario import Scenario

UNDECLARED = "undeclared"
SECTIONS = ("data", "stream", "evaluation")  # of the settings: what a foreign record shares with a run's


class Tally(NamedTuple):
    """Counts of label maps by step."""

    matrices: dict[int, np.ndarray]  # (n, n) int64 of each scored step, rows the truth
    digest: str
    resized: int


def foreign_record(
    plan: Plan, scenario: Scenario, tally: Tally, method: str, about: About, network: ForeignNetwork | None
) -> Record:
    """The record of what was counted; of steps that were not scored it has no evaluation."""
    s, stream = plan.settings, scenario.stream
    backbone, values = _backbone(about.network)
    settings: dict[str, Any] = {
        "benchmark": s.benchmark,
        "strategy": method,
        "strategy_values": dict(about.strategy),
        "plugins": {},
        "backbone": backbone,
        "backbone_values": {**values, **({} if about.weights is None else {"weights": about.weights})},
        "seed": s.seed,
        **{key: value for key, value in s.model_dump(mode="json").items() if key in SECTIONS},
        "training": about.training,
    }
    settings["stream"]["order"] = [c for group in plan.steps for c in group]
    foreign = Foreign(
        predictions="network" if network else "maps",
        digest=tally.digest,
        resized=tally.resized,
        declared=about.declared,
    )
    content = {**settings, "data": {**settings["data"], "root": None}, "foreign": foreign.model_dump()}
    environment: dict[str, Any] = {
        "stream": scenario.fingerprint,
        "images": {"train": len(plan.train), "test": len(scenario.tests[0])},
        "later": list(scenario.later),
    }
    if network:
        named = inspect.isclass(network.make) or inspect.isfunction(network.make)
        source = source_hash(cast(Any, network.make)) if named else ""
        environment |= {"torch": torch.__version__, "sources": {network.text: source} if source else {}}
        settings["device"] = s.device
    last = max(tally.matrices)
    record = Record(
        densecl=__version__,
        benchmark=s.benchmark,
        strategy=method,
        backbone=backbone,
        seed=s.seed,
        hash=hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8],
        status="finished" if last == len(stream.steps) - 1 else "interrupted",
        resumable=False,
        oracle="task" if about.told_step else "classes" if about.known_classes else None,
        foreign=foreign,
        settings=settings,
        environment=environment,
        class_names=list(stream.class_names),
        has_background=stream.has_background,
        planned_steps=[list(group) for group in stream.groups],
    )
    for k in range(last + 1):
        record = record.model_copy(update={"steps": [*record.steps, _step(plan, scenario, tally, record, k)]})
    return record


def _step(plan: Plan, scenario: Scenario, tally: Tally, record: Record, step: int) -> StepRecord:
    stream, evaluations = scenario.stream, []
    if (matrix := tally.matrices.get(step)) is not None:
        unknown = [None] * len(matrix)
        before = [done.evaluations[0].metrics["iou"] if done.evaluations else unknown for done in record.steps]
        metrics = class_metrics(
            matrix,
            stream.groups,
            step,
            before,
            joint=stream.joint,
            has_background=stream.has_background,
            labels=stream.labels,
            absent=plan.settings.evaluation.absent,
        )
        evaluations = [Evaluation(task=stream.tasks[step].name, metrics=metrics, confusion=matrix.tolist())]
    new = list(stream.steps[step].new_classes)
    return StepRecord(
        step=step, task=stream.tasks[step].name, new_classes=new, iterations=0, seconds=0, evaluations=evaluations
    )


def _backbone(text: str | None) -> tuple[str, dict[str, Any]]:
    """A declared network as name and arguments, or in its author's words."""
    if text is None:
        return UNDECLARED, {}
    try:
        call = parse_one(text, "network")
    except SpecError:
        return clean(text), {}
    return call.name, dict(call.arguments)


def record_folder(output: Path, record: Record) -> Path:
    """The folder of a record, as runs have it."""
    parts = (record.benchmark, record.strategy, record.backbone, f"s{record.seed}-{record.hash}")
    return output.joinpath(*(re.sub(r"[^\w.+=-]", "_", part) for part in parts))
