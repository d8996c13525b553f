"""A run: every step trained, evaluated, recorded and kept."""

import contextlib
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import torch

from densecl import __version__
from densecl.errors import DenseCLError, RecordError, RunError
from densecl.files import write_error
from densecl.reporting.progress import Progress
from densecl.reporting.record import FILE_NAME, Record, StepRecord, read_record
from densecl.runner.build import build_network, build_scenario, build_strategy, is_resumable
from densecl.runner.checkpoint import save_weights
from densecl.runner.evaluation import confusion, ious, score
from densecl.runner.plan import Plan, make_plan
from densecl.runner.share import FirstStep, may_share, train_or_load
from densecl.strategies.base import Strategy
from densecl.streams.scenario import DenseExperience, Scenario


def run(
    benchmark: str, strategy: str, *, fresh: bool = False, share: bool = True, quiet: bool = True, **options: Any
) -> Record:
    """Train every step of a benchmark with a strategy, evaluate after each, and record it.

    Args:
        benchmark: such as `voc15-5s` or `voc15-5s(setting=disjoint)`.
        strategy: such as `mib`, `mib+replay(memory=100)` or `mine.py:Mine`.
        fresh: start over although a finished record is there.
        share: load step 0 from an earlier run where it is the same to the bit, and keep it for later ones.
        quiet: print nothing.
        **options: `backbone`, `seed`, `assignments`, `data`, `output`, `weights`, `device`, `precision`, `validation`,
            `workers`, `catalogue`; see `densecl.runner.plan.make_plan`.

    Returns:
        The record, as written to `result.json` in the run's folder.

    Raises:
        DenseCLError: bad input, named; a loss that is not finite; a full disk; a run folder in use.
    """
    return execute(make_plan(benchmark, strategy, **options), fresh=fresh, share=share, progress=Progress(quiet=quiet))


def execute(plan: Plan, *, fresh: bool = False, share: bool = True, progress: Progress) -> Record:
    """Carry out a plan; a finished run is trained again only if `fresh`, an equal first step is loaded if `share`."""
    share = share and may_share(plan)
    folder = plan.folder
    result = folder / FILE_NAME
    with _locked(folder):
        done = None if fresh else _finished(result)
        if done is not None:
            progress.line(f"already finished: {result} (--fresh starts over)")
            return done
        scenario, workers = build_scenario(plan)
        network = build_network(plan.settings)
        _check_space(folder, network, len(scenario.train_stream))
        strategy = build_strategy(plan, scenario, network, workers, progress)
        shutil.rmtree(folder / "weights", ignore_errors=True)
        record = _new_record(plan, scenario, workers)
        record.write(result)
        progress.run_started(plan.folder, scenario.settings.steps, scenario.class_names)
        try:
            with progress:
                for experience in scenario.train_stream:
                    record = _step(
                        plan, scenario, strategy, experience, record, share=share, workers=workers, progress=progress
                    )
                    record.write(result)
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with contextlib.suppress(DenseCLError):  # the disk may be full: the first message is the one to show
                record.model_copy(update={"status": status}).write(result)
            raise
        return record


def _step(
    plan: Plan,
    scenario: Scenario,
    strategy: Strategy,
    experience: DenseExperience,
    record: Record,
    *,
    share: bool,
    workers: int,
    progress: Progress,
) -> Record:
    """Train, evaluate and keep one step; the record with it."""
    if strategy.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(strategy.device)

    def train() -> None:
        strategy.train(experience, eval_streams=[])

    if experience.step == 0 and share:
        trained = train_or_load(plan, scenario, strategy, train, progress.line)
    else:
        start = time.perf_counter()
        train()
        trained = FirstStep(strategy.iterations, time.perf_counter() - start, loaded=False)
    progress.evaluating(experience.step)
    matrix = confusion(strategy, scenario.test, len(scenario.class_names), plan.settings.evaluation.batch, workers)
    evaluation = score(matrix, scenario, experience.step, ious(record.steps))
    save_weights(strategy.network, plan.settings, plan.folder, experience.step)
    step = StepRecord(
        step=experience.step,
        task=experience.task.name,
        new_classes=list(experience.new_classes),
        iterations=trained.iterations,
        seconds=trained.seconds,
        peak_memory=_peak_memory(strategy.device),
        stored_bytes=strategy.stored_bytes(),
        shared=trained.loaded,
        evaluations=[evaluation],
    )
    progress.step_finished(step)
    status = "finished" if experience.step == len(scenario.train_stream) - 1 else "running"
    return record.model_copy(update={"steps": [*record.steps, step], "status": status})


def _new_record(plan: Plan, scenario: Scenario, workers: int) -> Record:
    s = plan.settings
    settings = s.model_dump(mode="json")
    settings["stream"]["order"] = [c for step in plan.steps for c in step]  # as used, also when made from a seed
    return Record(
        densecl=__version__,
        benchmark=s.benchmark,
        strategy=plan.method.name,
        backbone=s.backbone,
        seed=s.seed,
        hash=plan.hash,
        status="running",
        resumable=is_resumable(plan),
        oracle=plan.method.strategy.cls.oracle,  # type: ignore[attr-defined]
        settings=settings,
        environment=_environment(torch.device(s.device), workers) | {"stream": scenario.fingerprint},
        class_names=list(scenario.class_names),
        has_background=scenario.has_background,
        planned_steps=[list(group) for group in scenario.groups],
    )


def _environment(device: torch.device, workers: int) -> dict[str, Any]:
    """What a reader needs to reproduce or to compare the costs."""
    cuda = device.type == "cuda"
    return {
        "git": _git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "world": 1,
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


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the device's allocator, or the largest resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _finished(path: Path) -> Record | None:
    """The finished record at `path`; a broken or unfinished one is trained again."""
    if not path.is_file():
        return None
    with contextlib.suppress(RecordError):
        record = read_record(path)
        return record if record.status == "finished" else None
    return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder; the lock of a process that died is free."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        with lock:
            yield
    except filelock.Timeout as error:
        raise RunError(
            f"the run folder {folder} is in use by another process", "wait for it, or use another --output"
        ) from error
    except PermissionError as error:
        raise write_error(folder, error) from error


def _check_space(folder: Path, network: torch.nn.Module, steps: int) -> None:
    """Refuse to start a run whose weights will not fit."""
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    needed = int(1.1 * size * steps) + 8 * 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"not enough disk for {folder}: {needed / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free",
            "free some space or choose another --output",
        )
