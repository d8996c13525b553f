"""A run: every step trained, evaluated, recorded and kept."""

import contextlib
import platform
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

from densecl import __version__
from densecl.errors import DataError, DenseCLError, RecordError, RunError
from densecl.files import write_error
from densecl.reporting.progress import Progress
from densecl.reporting.record import FILE_NAME, Record, StepRecord, read_record
from densecl.runner.build import build_network, build_scenario, build_strategy, is_resumable
from densecl.runner.checkpoint import save_weights
from densecl.runner.evaluation import confusion, ious, score
from densecl.runner.plan import Plan, make_plan
from densecl.runner.resume import Checkpoints, go_on
from densecl.runner.share import FirstStep, may_share, train_or_load
from densecl.strategies.base import Strategy
from densecl.streams.scenario import DenseExperience, Scenario
from densecl.training.failures import explained


def run(
    benchmark: str,
    strategy: str,
    *,
    fresh: bool = False,
    share: bool = True,
    keep_checkpoints: bool = False,
    quiet: bool = True,
    **options: Any,
) -> Record:
    """Train every step of a benchmark with a strategy, evaluate after each, and record it.

    Args:
        benchmark: such as `voc15-5s` or `voc15-5s(setting=disjoint)`.
        strategy: such as `mib`, `mib+replay(memory=100)` or `mine.py:Mine`.
        fresh: start over although a finished record is there.
        share: load step 0 from an earlier run where it is the same to the bit, and keep it for later ones.
        keep_checkpoints: of every epoch, not only of the step in training.
        quiet: print nothing.
        **options: `backbone`, `seed`, `assignments`, `data`, `output`, `weights`, `device`, `precision`, `validation`,
            `workers`, `catalogue`; see `densecl.runner.plan.make_plan`.

    Returns:
        The record, as written to `result.json` in the run's folder.

    Raises:
        DenseCLError: bad input, named; a loss that is not finite; a full disk; a run folder in use.
    """
    plan = make_plan(benchmark, strategy, **options)
    return execute(plan, fresh=fresh, share=share, keep_checkpoints=keep_checkpoints, progress=Progress(quiet=quiet))


def execute(
    plan: Plan, *, fresh: bool = False, share: bool = True, keep_checkpoints: bool = False, progress: Progress
) -> Record:
    """Carry out a plan, or go on with it where it was killed.

    Args:
        plan: what to do.
        fresh: start over, also when the run is finished.
        share: load a first step that is equal to the bit, and keep ours for later runs.
        keep_checkpoints: of all epochs; else those of the step in training.
        progress: hears how it goes.
    """
    share = share and may_share(plan)
    folder = plan.folder
    result = folder / FILE_NAME
    if not fresh and (done := _finished(result, progress)):
        return done
    # all that bad input can break comes before the folder is made
    scenario, workers = build_scenario(plan, progress.scan("scanning masks"))
    network = build_network(plan.settings)
    strategy = build_strategy(plan, scenario, network, workers, progress)
    _check_space(folder, network, len(scenario.train_stream))
    with _locked(folder):
        # another process may have finished it while the masks were scanned
        if not fresh and (done := _finished(result, progress)):
            return done
        record = _new_record(plan, scenario, workers)
        checkpoints = Checkpoints(folder, plan.hash, keep_checkpoints)
        progress.run_started(plan.folder, scenario.settings.steps, scenario.class_names)
        work = Work(plan, scenario, strategy, checkpoints, workers, progress)
        try:
            with progress, _terminable():
                steps, spent = ([], 0.0) if fresh or not record.resumable else work.go_on(result, record)
                if not steps and not spent:
                    shutil.rmtree(folder / "weights", ignore_errors=True)
                    shutil.rmtree(checkpoints.folder, ignore_errors=True)
                complete = len(steps) == len(scenario.train_stream)
                record = record.model_copy(update={"steps": steps, "status": "finished" if complete else "running"})
                record.write(result)
                for experience in list(scenario.train_stream)[len(steps) :]:
                    record = work.step(experience, record, share=share, spent=spent)
                    record.write(result)
                    checkpoints.prune(experience.step)
                    spent = 0.0
        except BaseException as error:
            with contextlib.suppress(DenseCLError):
                checkpoints.close()
            if isinstance(error, DataError) and not record.steps and not checkpoints.any():
                _remove(folder, plan.output)  # an unreadable image: nothing was learnt
                raise
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            if record.status != "finished":
                with contextlib.suppress(DenseCLError):  # the disk may be full: the first message is the one to show
                    record.model_copy(update={"status": status}).write(result)
            if status == "interrupted":
                progress.line(f"stopped; the same command goes on from the last finished epoch: {_command()}")
            raise
        checkpoints.close()
        return record


@dataclass
class Work:
    """What carrying out a plan has at hand."""

    plan: Plan
    scenario: Scenario
    strategy: Strategy
    checkpoints: Checkpoints
    workers: int
    progress: Progress

    def go_on(self, result: Path, new: Record) -> tuple[list[StepRecord], float]:
        """The steps a killed run finished, and the seconds it spent in the next one; the strategy is brought there."""
        try:
            old = read_record(result) if result.is_file() else new
        except RecordError as error:
            self.progress.line(f"refused: {error}")
            old = new
        if old.environment.get("stream") != new.environment["stream"]:
            self.progress.line("the data has changed since the run began: it starts over")
            return [], 0.0
        say, folder = self.progress.line, self.plan.folder
        finished, spent = go_on(self.strategy, self.scenario, folder, self.checkpoints, len(old.steps), say)
        return list(old.steps[:finished]), spent

    def train(self, experience: DenseExperience, spent: float) -> None:
        """Train a step, with a checkpoint after each epoch; `spent` seconds went into it before."""
        start = time.perf_counter() - spent

        def keep() -> None:
            self.checkpoints.save_epoch({**self.strategy.state(), "seconds": time.perf_counter() - start})

        self.strategy.after_epoch = keep if is_resumable(self.plan) else None
        self.strategy.train(experience, eval_streams=[])

    def step(self, experience: DenseExperience, record: Record, *, share: bool, spent: float) -> Record:
        """Train, evaluate and keep one step; the record with it."""
        try:
            return self._step(experience, record, share, spent)
        except Exception as error:
            shown = explained(error, self.plan.settings)
            if shown is error:
                raise
            raise shown from error

    def _step(self, experience: DenseExperience, record: Record, share: bool, spent: float) -> Record:
        plan, scenario, strategy = self.plan, self.scenario, self.strategy
        if strategy.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(strategy.device)
        if experience.step == 0 and share:

            def train() -> None:
                self.train(experience, spent)

            trained = train_or_load(plan, scenario, strategy, train, self.progress.line)
        else:
            start = time.perf_counter()
            self.train(experience, spent)
            trained = FirstStep(strategy.iterations, time.perf_counter() - start, loaded=False)
        self.progress.evaluating(experience.step)
        batch = plan.settings.evaluation.batch
        matrix = confusion(strategy, scenario.test, len(scenario.class_names), batch, self.workers)
        save_weights(strategy.network, plan.settings, plan.folder, experience.step)
        if record.resumable:
            self.checkpoints.save_step(experience.step, strategy.method_state())
        step = StepRecord(
            step=experience.step,
            task=experience.task.name,
            new_classes=list(experience.new_classes),
            iterations=trained.iterations,
            seconds=trained.seconds + (0.0 if trained.loaded else spent),
            peak_memory=_peak_memory(strategy.device),
            stored_bytes=strategy.stored_bytes(),
            shared=trained.loaded,
            evaluations=[score(matrix, scenario, experience.step, ious(record.steps))],
        )
        self.progress.step_finished(step)
        status = "finished" if experience.step == len(scenario.train_stream) - 1 else "running"
        return record.model_copy(update={"steps": [*record.steps, step], "status": status})


def _command() -> str:
    """The command line that runs this, or what stands for it in Python."""
    typed = Path(sys.argv[0]).name in ("densecl", "__main__.py")
    return shlex.join(["densecl", *sys.argv[1:]]) if typed else "densecl.run(...) as before"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: what is pending is written and the way to go on is said."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
        environment=_environment(torch.device(s.device), workers)
        | {
            "later": list(scenario.settings.later),  # images of each step that also hold classes of later steps
            "stream": scenario.fingerprint,
            "images": {"train": len(scenario.training.reader), "test": len(scenario.test)},
        },
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
        "bn_sync": False,
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


def _finished(path: Path, progress: Progress) -> Record | None:
    """The finished record at `path`, which is said; a broken or unfinished one is trained again."""
    if not path.is_file():
        return None
    with contextlib.suppress(RecordError):
        record = read_record(path)
        if record.status == "finished":
            progress.line(f"already finished: {path} (--fresh starts over)")
            return record
    return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder; the lock of a process that died is free."""
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise RunError(
            f"the run folder {folder} is in use by another process", "wait for it, or use another --output"
        ) from error
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _remove(folder: Path, output: Path) -> None:
    """Remove a run's folder, and the folders up to `output` that it leaves empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty
        for parent in folder.parents:
            if parent == output.parent:
                break
            parent.rmdir()


def _check_space(folder: Path, network: torch.nn.Module, steps: int) -> None:
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
