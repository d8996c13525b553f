"""A whole sweep: the plan read, every run checked, then carried out by an engine until all have ended."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densecl.errors import RunError, UnknownNameError
from densecl.listeners.progress import Progress
from densecl.records.record import Record
from densecl.runner.folder import locked
from densecl.sweep import launch
from densecl.sweep.display import Display
from densecl.sweep.engine import Ended, Engine
from densecl.sweep.jobs import Job, Where, check, make_jobs
from densecl.sweep.local import Local, cores, gpus
from densecl.sweep.planfile import SweepPlan, expand, read_plan
from densecl.sweep.preview import describe, runs
from densecl.tables.forms.text import humanise

ENGINES = ("local", "slurm")
FOLDER = ".sweep"  # in the results' folder: logs, and what the engines keep


@dataclass(frozen=True)
class Result:
    """What came of a sweep.

    Attributes:
        records: of all runs that have one, in the plan's order. failed: those that did not finish, and why.
    """

    records: list[Record]
    failed: list[Ended]


@dataclass(frozen=True)
class Prepared:
    """A sweep that may start.

    Attributes:
        plan: as read. jobs: all runs, those to do checked. threads: of each run. slots: how many run at a time.
        devices: GPUs for the slots. engine: local or slurm.
    """

    plan: SweepPlan
    jobs: Sequence[Job]
    output: Path
    engine: str
    threads: int
    slots: int
    devices: Sequence[str] = ()

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
        asked = [f"cpus={s.cpus}", *([f"gpus={s.gpus}"] if s.gpus else []), *([f"mem={s.mem}"] if s.mem else [])]
        slurm = f"SLURM, each run {', '.join(asked)}, {humanise(60 * s.time)}"
        local = f"{self.slots} at a time, {self.threads} thread{'s' * (self.threads > 1)} each"
        return describe(self.jobs, self.threads, self.slots, slurm if self.engine == "slurm" else local)


def sweep(plan: Path | str | Mapping[str, Any], *, quiet: bool = True, **options: Any) -> Result:
    """Carry out all runs of a plan; those that are finished are not repeated, those that were killed go on.

    Args:
        plan: a TOML file, or the same as a dictionary; see `densecl.sweep`.
        quiet: print nothing.
        **options: `output`, `data`, `device`, `workers`, `catalogue`, `engine`, `jobs`, `threads`; see `prepare`.

    Returns:
        The records, and the runs that failed: a run that fails does not stop the others.

    Raises:
        DenseCLError: bad input, named, before anything is started; another sweep in the same folder.
    """
    return carry_out(prepare(plan, quiet=quiet, **options), quiet=quiet)


def prepare(
    plan: Path | str | Mapping[str, Any],
    *,
    output: Path | str = Path("results"),
    data: Path | str | None = None,
    device: str | None = None,
    workers: int | None = None,
    catalogue: Path | str | None = None,
    engine: str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    quiet: bool = True,
) -> Prepared:
    """Read a plan and check every run of it; what is given here wins over the plan.

    Args:
        plan: a TOML file, or the same as a dictionary.
        output: where results go.
        data: folder of the data set.
        device: that the runs compute on.
        workers: processes of each run that load data.
        catalogue: folder with recipes of one's own.
        engine: local or slurm.
        jobs: how many run at a time, on the local engine.
        threads: of each run.
        quiet: print nothing.

    Raises:
        RecipeError: naming the plan, and the key or the run at fault. UnknownNameError: no such engine.
        SettingError: SLURM is absent. DataError: data is missing.
    """
    read = read_plan(plan)
    engine = engine or read.engine
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine == "slurm":
        from densecl.sweep.slurm import require_slurm

        require_slurm()
    where = Where(
        Path(output),
        _path(data) or read.data,
        device or read.device,
        read.workers if workers is None else workers,
        _path(catalogue) or read.catalogue,
    )
    remote = engine == "slurm"
    resolved = make_jobs(expand(read), where, read.source, remote=remote)
    threads = threads or (read.slurm.cpus if remote else read.local.threads)
    open_jobs = [job for job in resolved if job.state() != "finished"]
    with Progress(quiet).scan("scanning masks") as scan:
        checked = {job.number: job for job in check(open_jobs, read.source, threads, scan, remote=remote)}
    devices = [] if remote else gpus(open_jobs)
    slots = jobs or read.local.jobs or len(devices) or max(1, cores() // threads)
    slots = max(1, min(read.slurm.array_parallelism if remote else slots, len(open_jobs)))
    return Prepared(
        read, [checked.get(job.number, job) for job in resolved], where.output, engine, threads, slots, devices
    )


def carry_out(prepared: Prepared, *, quiet: bool = True) -> Result:
    """Run what is not finished, and wait for its end.

    Raises:
        RunError: another sweep has the folder; SLURM refused the jobs. KeyboardInterrupt: told to stop.
    """
    jobs = prepared.jobs
    failed: list[Ended] = []
    busy = RunError(f"another sweep is running in {prepared.output}", "wait for it, or give this one another --output")
    with launch.terminable(), locked(prepared.output / FOLDER, busy), Display(jobs, quiet) as display:
        open_jobs = [job for job in jobs if job.state() != "finished"]
        done = len(jobs) - len(open_jobs)
        display.line(f"{runs(len(jobs))}, {done} finished; logs in {prepared.folder}")
        engine = _engine(prepared, open_jobs, display)
        try:
            while done < len(jobs):
                for result in engine.poll():
                    done += 1
                    failed += [result] if result.problem else []
                    display.ended(result, done, str(prepared.logs[result.job.number]))
                display.refresh(engine, len(failed))
                time.sleep(engine.interval if done < len(jobs) else 0)
        except BaseException:
            display.line(engine.stop())
            raise
    return Result([record for job in jobs if (record := job.record()) is not None], failed)


def _engine(prepared: Prepared, jobs: Sequence[Job], display: Display) -> Engine:
    if prepared.engine == "local":
        return Local(jobs, prepared.logs, prepared.slots, prepared.threads, prepared.devices)
    from densecl.sweep.slurm import Slurm

    engine = Slurm(jobs, prepared.logs, prepared.folder, prepared.plan.slurm, prepared.threads)
    display.line(engine.said)
    return engine


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
