"""The record of a run that begins: settings, versions and the machine; and whether the disk has room for it."""

import contextlib
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from densecl import __version__
from densecl.errors import RunError
from densecl.records.record import Record, TaskRecord
from densecl.runner.plan import Plan
from densecl.settings.catalogue import source_hash
from densecl.streams.scenario import Scenario
from densecl.training import distributed


def new_record(plan: Plan, scenario: Scenario, workers: int) -> Record:
    """The record of a run that begins."""
    s, stream, device = plan.settings, scenario.stream, torch.device(plan.settings.device)
    settings, tasks, cuda = s.model_dump(mode="json"), [], device.type == "cuda"
    if stream.kind == "classes":
        settings["stream"]["order"] = [c for step in plan.steps for c in step]  # as used, also when made from a seed
    else:
        values = ("name", "kind", "primary", "higher_is_better", "settings")
        for task, names in zip(stream.tasks, stream.names, strict=True):
            own = list(names or task.class_names)
            tasks.append(TaskRecord(class_names=own, **{key: getattr(task, key) for key in values}))
    sources = [(part.name, part.source) for part in plan.method.parts] + [(plan.backbone_name, plan.backbone_source)]
    sources += [(type(reader).__name__, source_hash(type(reader))) for pair in plan.readers for reader in pair]
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
        environment={
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
            "later": list(scenario.later),  # images of each step that also hold classes of later steps
            "stream": scenario.fingerprint,
            "sources": {name: source for name, source in sources if source},
            "images": {
                "train": sum(len(reader) for reader in dict.fromkeys(scenario.training.readers)),
                "test": sum(map(len, scenario.tests)),
            },
        },
        class_names=list(stream.class_names),
        has_background=stream.has_background,
        tasks=tasks,
        planned_steps=[list(group) for group in stream.groups],
    )


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


def check_space(folder: Path, network: torch.nn.Module, steps: int) -> None:
    """Refuse to start a run whose weights will not fit."""
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    # each step's weights, the shared first step, and three epochs with an optimiser of two moments
    needed = int(size * (steps + 1 + 3 * 3)) + 8 * 2**20
    there = next((place for place in (folder, *folder.absolute().parents) if place.is_dir()), Path())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise RunError(
            f"not enough disk for {folder}: {needed / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free",
            "free some space or choose another --output",
        )
