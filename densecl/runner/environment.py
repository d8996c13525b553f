"""The record of a run that begins: settings, versions and the machine."""

import contextlib
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from densecl import __version__
from densecl.records.record import Record, TaskRecord
from densecl.runner.plan import Plan
from densecl.streams.scenario import Scenario
from densecl.streams.stream import Stream
from densecl.training import distributed


def new_record(plan: Plan, scenario: Scenario, workers: int) -> Record:
    """The record of a run that begins."""
    s, stream = plan.settings, scenario.stream
    settings = s.model_dump(mode="json")
    if stream.kind == "classes":
        settings["stream"]["order"] = [c for step in plan.steps for c in step]  # as used, also when made from a seed
    return Record(
        densecl=__version__,
        benchmark=s.benchmark,
        strategy=plan.method.name,
        backbone=plan.backbone_name,
        seed=s.seed,
        hash=plan.hash,
        status="running",
        resumable=plan.method.resumable,
        oracle=plan.method.strategy.cls.oracle,  # type: ignore[attr-defined]
        settings=settings,
        environment=_environment(torch.device(s.device), workers)
        | {
            "later": list(scenario.later),  # images of each step that also hold classes of later steps
            "stream": scenario.fingerprint,
            "sources": {p.name: p.source for p in (plan.method.strategy, *plan.method.plugins) if p.source}
            | ({plan.backbone_name: plan.backbone_source} if plan.backbone_source else {}),
            "images": {
                "train": sum(len(reader) for reader in dict.fromkeys(scenario.training.readers)),
                "test": sum(map(len, scenario.tests)),
            },
        },
        class_names=list(stream.class_names),
        has_background=stream.has_background,
        tasks=_task_records(stream),
        planned_steps=[list(group) for group in stream.groups],
    )


def _task_records(stream: Stream) -> list[TaskRecord]:
    """The tasks of a sequence; none for a class-incremental stream."""
    if stream.kind == "classes":
        return []
    return [
        TaskRecord(
            name=task.name,
            kind=task.kind,
            primary=task.primary,
            higher_is_better=task.higher_is_better,
            class_names=list(names),
            settings=task.settings,
        )
        for task, names in zip(stream.tasks, stream.names, strict=True)
    ]


def _environment(device: torch.device, workers: int) -> dict[str, Any]:
    """Facts that a reader needs to reproduce a run or to compare costs."""
    cuda = device.type == "cuda"
    return {
        "git": _git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "world": distributed.world(),
        "bn_sync": distributed.syncs_batchnorm(device),
        "workers": workers,
    }


def _git_revision() -> str | None:
    """The commit of the checkout the package runs from, with + when it has changes; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return None


def peak_memory(device: torch.device) -> int:
    """Peak bytes of the device's allocator, or of the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
