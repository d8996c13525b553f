"""A whole sweep: the plan read, every run checked, then carried out by an engine until all have ended."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densecl.data.class_index import usable_cores
from densecl.errors import UnknownNameError
from densecl.files import locked
from densecl.listeners.progress import Progress
from densecl.records.record import Record
from densecl.runner.signals import terminable
from densecl.sweep.display import Display
from densecl.sweep.jobs import Job, Where, check, make_jobs
from densecl.sweep.planfile import SweepPlan, expand, read_plan
from densecl.sweep.preview import describe, runs
from densecl.sweep.slurm import Slurm, require_slurm
from densecl.sweep.submit import Ended, Engine, Local
from densecl.terminal import humanise

ENGINES = ("local", "slurm")
FOLDER = ".sweep"  # in the results' folder: logs, and what the engines keep


@dataclass(frozen=True)
class Result:
    """The records of all runs that have one, in the plan's order; those that did not finish, and why."""

    records: list[Record]
    failed: list[Ended]


@dataclass(frozen=True)
class Sweep:
    """A sweep that may start."""

    plan: SweepPlan
    jobs: Sequence[Job]  # all runs; those to do are checked
    output: Path
    engine: str  # local or slurm
    threads: int  # of each run
    slots: int  # how many run at a time
    devices: Sequence[str] = ()  # GPUs for the slots

    @property
    def folder(self) -> Path:
        """Logs of the runs, and what an engine keeps."""
        return self.output / FOLDER / self.plan.name

    @property
    def logs(self) -> dict[int, Path]:
        """The file that a run's output is appended to, by number."""
        return {job.number: self.folder / f"{job.name}.log" for job in self.jobs}

    def describe(self) -> str:
        """Every run, what is left of it, and its estimated cost, as text."""
        s = self.plan.slurm
        how = f"{self.slots} at a time, {self.threads} thread{'s' * (self.threads > 1)} each"
        if self.engine == "slurm":
            asked = {"cpus": s.cpus, "gpus": s.gpus, "mem": s.mem}
            each = ", ".join(f"{key}={value}" for key, value in asked.items() if value)
            how = f"SLURM, each run {each}, {humanise(60 * s.time)}"
        return describe(self.jobs, self.threads, self.slots, how)

    def start(self, jobs: Sequence[Job]) -> Engine:
        """An engine for some of the jobs."""
        if self.engine == "local":
            return Local(jobs, self.logs, self.slots, self.threads, self.devices)
        return Slurm(jobs, self.logs, self.folder, self.plan.slurm, self.threads)


def sweep(plan: Path | str | Mapping[str, Any], *, quiet: bool = True, **options: Any) -> Result:
    """Carry out all runs of a plan; those that are finished are not repeated, those that were killed go on.

    A run that fails does not stop the others; bad input is refused before anything is started.

    Args:
        plan: a TOML file, or the same as a dictionary; see `densecl.sweep`.
        quiet: print nothing.
        **options: `output`, `data`, `device`, `workers`, `catalogue`, `engine`, `jobs`, `threads`; see `prepare`.
    """
    return carry_out(prepare(plan, quiet=quiet, **options), quiet=quiet)


def prepare(
    plan: Path | str | Mapping[str, Any] | SweepPlan,
    *,
    assignments: Sequence[str] = (),
    output: Path | str = Path("results"),
    data: Path | str | None = None,
    device: str | None = None,
    workers: int | None = None,
    catalogue: Path | str | None = None,
    engine: str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    quiet: bool = True,
) -> Sweep:
    """Read a plan and check every run of it. The options are those of `densecl sweep`; they win over the plan.

    `assignments` are settings of every run, as `--set` of `densecl run`.
    """
    read = plan if isinstance(plan, SweepPlan) else read_plan(plan)
    engine = engine or read.engine
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    remote = engine == "slurm"
    if remote:
        require_slurm()
    where = Where(
        Path(output),
        Path(data) if data else read.data,
        device or read.device,
        read.workers if workers is None else workers,
        Path(catalogue) if catalogue else read.catalogue,
    )
    resolved = make_jobs(expand(read, assignments), where, read.source, remote=remote)
    open_jobs = [job for job in resolved if job.state() != "finished"]
    threads = threads or (read.slurm.cpus if remote else read.local.threads)
    with Progress(quiet).scan("scanning masks") as scan:
        checked = {job.number: job for job in check(open_jobs, read.source, threads, scan, remote=remote)}
    devices = [] if remote else _gpus(open_jobs)
    slots = (
        read.slurm.array_parallelism if remote else jobs or read.local.jobs or len(devices) or usable_cores() // threads
    )
    slots = max(1, min(slots, len(open_jobs)))
    return Sweep(
        read, [checked.get(job.number, job) for job in resolved], where.output, engine, threads, slots, devices
    )


def carry_out(prepared: Sweep, *, quiet: bool = True) -> Result:
    """Run what is not finished, and wait for its end; RunError where another sweep has the folder."""
    jobs = prepared.jobs
    failed: list[Ended] = []
    busy = f"another sweep is running in {prepared.output}. wait for it, or give this one another --output"
    with (
        terminable(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        locked(prepared.output / FOLDER / ".lock", busy),
        Display(jobs, quiet) as display,
    ):
        open_jobs = [job for job in jobs if job.state() != "finished"]
        done = len(jobs) - len(open_jobs)
        display.line(f"{runs(len(jobs))}, {done} finished; logs in {prepared.folder}")
        if open_jobs:
            engine = prepared.start(open_jobs)
            if engine.said:
                display.line(engine.said)
            try:
                while done < len(jobs):
                    time.sleep(engine.interval)
                    for result in engine.poll():
                        done += 1
                        failed += [result] if result.problem else []
                        display.ended(result, done, str(prepared.logs[result.job.number]))
                    display.refresh(engine, len(failed))
            except BaseException:
                display.line(engine.stop())
                raise
    return Result([record for job in jobs if (record := job.record()) is not None], failed)


def _gpus(jobs: Sequence[Job]) -> list[str]:
    """CUDA_VISIBLE_DEVICES for each slot; none where runs compute on the CPU or name their GPU."""
    import torch

    if not jobs or any(job.plan.settings.device != "cuda" for job in jobs):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(k) for k in range(torch.cuda.device_count())]
