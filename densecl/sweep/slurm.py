"""The engine `slurm`: one array job, through submitit, and a second one for runs that wait for a first step.

The state of jobs is read from `squeue` and what came of a run from its record, so no accounting database is needed, and
no result that submitit pickles is read. Jobs outlive the command: given again, it looks after those in the queue.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densecl.errors import RunError, SettingError
from densecl.files import write_text
from densecl.sweep import launch
from densecl.sweep.engine import Ended
from densecl.sweep.jobs import Job
from densecl.sweep.planfile import SlurmSettings
from densecl.sweep.schedule import leaders, needs_first_step

COMMANDS = ("sbatch", "srun", "squeue", "scontrol")
PATIENCE = 20.0  # seconds until a record, written on another machine, must be seen on this one
ASK = 60.0  # seconds for SLURM to answer
PARAMETERS = {"cpus": "cpus_per_task", "gpus": "gpus_per_node"}  # ours -> submitit's; all others are named alike


class SlurmRun:
    """What submitit calls on a node: one run as a process of its own, in a job that may be requeued at any time."""

    def __call__(self, words: Sequence[str], log: str, threads: int) -> int:
        """Run to the end; its exit code. A job that leaves early ends its run."""
        process = launch.start(words, Path(log), threads)
        try:
            code = process.wait()
        finally:
            launch.stop([process])
        if code:
            sys.exit(code if code > 0 else 128 - code)  # for SLURM's own books
        return code

    def checkpoint(self, *arguments: Any) -> Any:
        """At the end of a job's time: the same again, which goes on from the last epoch."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def require_slurm() -> None:
    """Refuse where SLURM is not.

    Raises:
        SettingError: a command is missing.
    """
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        raise SettingError(
            f"--engine slurm: there is no {missing[0]} on this machine",
            "run the sweep where SLURM's commands are (Debian: apt-get install slurm-client), or use --engine local",
        )


class Slurm:
    """Submits all jobs at once and looks after them.

    Args:
        jobs: to do. logs: file of each job, by number. folder: for scripts, pickles and the ids of jobs.
        settings: what each run gets. threads: of each.
    """

    def __init__(
        self, jobs: Sequence[Job], logs: Mapping[int, Path], folder: Path, settings: SlurmSettings, threads: int
    ):
        self.settings, self.interval, self.threads, self.logs = settings, settings.poll, threads, logs
        self._scripts, self._book = folder / "slurm", folder / "slurm.json"
        self._ids: dict[int, str] = {}  # of SLURM, by number of the job
        self._open = {job.number: job for job in jobs}
        self._held: set[int] = set()  # submitted, and waiting for a first step
        self._states: dict[str, str] = {}
        self._gone: dict[int, float] = {}  # when a job was first missed in the queue
        self.said = self._submit(jobs)

    def _submit(self, jobs: Sequence[Job]) -> str:
        """Submit what is not in the queue yet; a line about it."""
        self._states = self._queue() or {}
        before = self._read_book()
        self._ids = {job.number: before[job.plan.hash] for job in jobs if before.get(job.plan.hash) in self._states}
        fresh = [job for job in jobs if job.number not in self._ids]
        ahead = {job.number for job in leaders(jobs)}
        awaited = {job.first_step for job in jobs if job.number in ahead}
        first = [job for job in fresh if job.number in ahead or job.first_step not in awaited or not _needs(job)]
        later = [job for job in fresh if job not in first]
        self._array(first)
        # whatever becomes of those that go ahead: the lock of a first step keeps the rest from training it twice
        self._array(later, {"dependency": ":".join(["afterany", *(self._ids[number] for number in sorted(ahead))])})
        self._held = {job.number for job in jobs if job.number not in ahead and self._state(job.number) == "PENDING"}
        known = len(jobs) - len(fresh)
        return f"SLURM: {len(fresh)} jobs submitted" + (f", {known} in the queue already" if known else "")

    def _array(self, jobs: Sequence[Job], options: Mapping[str, str] | None = None) -> None:
        """One array job; the ids are written down at once, so that a sweep that is killed finds them again."""
        if not jobs:
            return
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        self._scripts.mkdir(parents=True, exist_ok=True)
        self._scripts.chmod(0o700)  # what submitit pickles there is run by the jobs: nobody else may write it
        executor = SlurmExecutor(self._scripts, max_num_timeout=self.settings.timeouts)
        executor.update_parameters(**parameters(self.settings, options))
        rows = [(list(job.words), str(self.logs[job.number].absolute()), self.threads) for job in jobs]
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # where submitit repeats what it raises
                made = executor.map_array(SlurmRun(), *zip(*rows, strict=True))
        except (FailedJobError, OSError, subprocess.SubprocessError) as error:
            raise RunError(f"sbatch refused the jobs: {_last_line(error)}", "see [slurm] of the plan") from error
        for job, submitted in zip(jobs, made, strict=True):
            self._ids[job.number] = submitted.job_id
            self._states[submitted.job_id] = "PENDING"
        hashes = {job.plan.hash: self._ids[job.number] for job in self._open.values() if job.number in self._ids}
        write_text(self._book, json.dumps({**self._read_book(), **hashes}, indent=1) + "\n")

    def _read_book(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            book = json.loads(self._book.read_text(encoding="utf-8"))
            return {str(key): str(value) for key, value in book.items()} if isinstance(book, dict) else {}
        return {}

    def poll(self) -> list[Ended]:
        """What has left the queue; jobs whose first step is there need not wait for the whole run that trained it."""
        states = self._queue()
        if states is None:  # SLURM did not answer: nothing is known
            return []
        self._states = states
        self._let_go()
        now, ended = time.monotonic(), []
        for number, job in list(self._open.items()):
            if self._ids[number] in states:
                self._gone.pop(number, None)
            elif job.state() == "finished":
                ended.append(Ended(job))
            elif now - self._gone.setdefault(number, now) >= PATIENCE:
                lines = tuple(launch.last_lines(self.logs[number]))
                ended.append(Ended(job, f"job {self._ids[number]} ended{_reason(self._ids[number])}", lines))
        for result in ended:
            del self._open[result.job.number]
        return ended

    def _let_go(self) -> None:
        """Take the dependency off jobs that can load their first step, as far as the limit of runs at a time allows."""
        free = self.settings.array_parallelism - len(self.running())
        for number in sorted(self._held & self._open.keys()):
            if free <= 0:
                return
            waits = self._state(number) == "PENDING"
            if waits and self._awaits(self._open[number]):
                continue
            if waits:
                _ask("scontrol", "update", f"jobid={self._ids[number]}", "dependency=")
                free -= 1
            self._held.discard(number)

    def _awaits(self, job: Job) -> bool:
        """Whether another job that is not held back is still to train the first step that `job` needs."""
        others = [o for o in self._open.values() if o.first_step == job.first_step and o.number not in self._held]
        return _needs(job) and any(needs_first_step(other) for other in others)

    def running(self) -> list[Job]:
        """The jobs that run now."""
        return [job for number, job in self._open.items() if self._state(number) == "RUNNING"]

    def waiting(self) -> int:
        """How many jobs have not begun."""
        return sum(self._state(number) == "PENDING" for number in self._open)

    def _state(self, number: int) -> str:
        """Of a job in the queue, in SLURM's words."""
        return self._states.get(self._ids[number], "")

    def stop(self) -> str:
        """Leave the jobs to SLURM."""
        ids = sorted({self._ids[number].split("_")[0] for number in self._open if number in self._ids})
        return f"the jobs stay in SLURM's queue; the same command looks after them, scancel {' '.join(ids)} ends them"

    def _queue(self) -> dict[str, str] | None:
        """State of each of the user's jobs by id; None where SLURM does not answer."""
        text = _ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i %T")
        if text is None:
            return None
        rows = (line.split() for line in text.splitlines())
        return {row[0]: row[1] for row in rows if len(row) == 2}


def parameters(settings: SlurmSettings, options: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The settings in submitit's words; `options` are further ones of sbatch."""
    given = settings.model_dump(exclude={"timeouts", "sbatch", "poll"}, exclude_none=True)
    result = {PARAMETERS.get(key, key): value for key, value in given.items() if value not in (0, ())}
    result["setup"] = [*settings.setup] or None
    further = {"requeue": True, **settings.sbatch, **(options or {})}
    return {**result, "job_name": "densecl", "stderr_to_stdout": True, "additional_parameters": further}


def _needs(job: Job) -> bool:
    return job.first_step is not None and needs_first_step(job)


def _ask(*command: str) -> str | None:
    """What a command of SLURM prints; None where it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=ASK, check=True).stdout
    return None


def _reason(job_id: str) -> str:
    """How SLURM says that a job ended, as long as it remembers."""
    words = (_ask("scontrol", "--oneliner", "show", "job", job_id) or "").split()
    state = next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "")
    return f" as {state}" if state else ""


def _last_line(error: BaseException) -> str:
    lines: Iterable[str] = (line.strip() for line in str(error).splitlines())
    return next((line for line in reversed([*lines]) if line), type(error).__name__)
