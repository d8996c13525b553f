"""The engine `slurm`: one array job, and a second one for runs that wait for a first step.

The state of jobs is read from `squeue` and what came of a run from its record, so no accounting database is needed, and
no result that submitit pickles is read. Jobs outlive the command: given again, it looks after those in the queue.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from densecl.errors import RunError, SettingError
from densecl.files import write_text
from densecl.sweep.jobs import Job, leaders, may_start
from densecl.sweep.planfile import SlurmSettings
from densecl.sweep.submit import Ended, Engine

COMMANDS = ("sbatch", "srun", "squeue", "scontrol")
PATIENCE = 20.0  # seconds until a record, written on another machine, must be seen on this one
ASK = 60.0  # seconds for SLURM to answer
PARAMETERS = {"cpus": "cpus_per_task", "gpus": "gpus_per_node"}  # ours -> submitit's; all others are named alike


def require_slurm() -> None:
    """Refuse where a command of SLURM is missing."""
    for command in COMMANDS:
        if shutil.which(command) is None:
            raise SettingError(
                f"--engine slurm: there is no {command} on this machine",
                "run the sweep where they are (Debian: apt-get install slurm-client), or use --engine local",
            )


class Slurm(Engine):
    """Submits all jobs at once and looks after them; `folder` is for scripts, pickles and the ids of jobs."""

    def __init__(
        self, jobs: Sequence[Job], logs: Mapping[int, Path], folder: Path, settings: SlurmSettings, threads: int
    ):
        super().__init__(jobs, logs, threads, settings.poll)
        self._settings, self._scripts, self._book = settings, folder / "slurm", folder / "slurm.json"
        self._states = self._queue() or {}
        self._gone: dict[int, float] = {}  # when a job was first missed in the queue
        book = self._read_book()
        self._ids = {n: book[job.plan.hash] for n, job in self._open.items() if book.get(job.plan.hash) in self._states}
        found = len(self._ids)
        self._held = self._submit_all()  # jobs in the queue that wait for a first step
        self.said = f"SLURM: {len(jobs) - found} jobs submitted" + (f", {found} in the queue already" if found else "")

    def poll(self) -> list[Ended]:
        """Collect what has left the queue, and let jobs go whose first step is there, before its run has ended."""
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
                ended.append(self._end(job))
            elif now - self._gone.setdefault(number, now) >= PATIENCE:
                ended.append(self._end(job, f"job {self._ids[number]} ended{_reason(self._ids[number])}"))
        return ended

    def running(self) -> list[Job]:
        """The jobs that run now."""
        return [job for number, job in self._open.items() if self._state(number) == "RUNNING"]

    def stop(self) -> str:
        """Leave the jobs to SLURM."""
        ids = sorted({self._ids[number].split("_")[0] for number in self._open if number in self._ids})
        return f"the jobs stay in SLURM's queue; the same command looks after them, scancel {' '.join(ids)} ends them"

    def _submit_all(self) -> set[int]:
        """Submit what is not in the queue yet; the numbers of jobs that wait for a first step."""
        ahead = leaders(self._open.values())
        followers = {
            number
            for number, job in self._open.items()
            if job not in ahead and job.needs_first_step() and job.first_step in {leader.first_step for leader in ahead}
        }
        fresh = [number for number in self._open if number not in self._ids]
        self._array([number for number in fresh if number not in followers])
        # whatever becomes of those that go ahead: the lock of a first step keeps the rest from training it twice
        after = ":".join(["afterany", *(self._ids[leader.number] for leader in ahead)])
        self._array([number for number in fresh if number in followers], {"dependency": after})
        return {number for number, job in self._open.items() if job not in ahead and self._state(number) == "PENDING"}

    def _array(self, numbers: Sequence[int], options: Mapping[str, str] | None = None) -> None:
        """One array job; the ids are written down at once, so that a sweep that is killed finds them again."""
        if not numbers:
            return
        self._scripts.mkdir(parents=True, exist_ok=True)
        self._scripts.chmod(0o700)  # what submitit pickles there is run by the jobs: nobody else may write it
        executor = submitit.SlurmExecutor(self._scripts, max_num_timeout=self._settings.timeouts)
        executor.update_parameters(**parameters(self._settings, options))
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # where submitit repeats what it raises
                submitted = executor.submit_array([self._launch(self._open[number]) for number in numbers])
        except (FailedJobError, OSError, subprocess.SubprocessError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise RunError(f"sbatch refused the jobs: {lines[-1]}", "see [slurm] of the plan") from error
        for number, job in zip(numbers, submitted, strict=True):
            self._ids[number] = job.job_id
            self._states[job.job_id] = "PENDING"
        ids = {self._open[number].plan.hash: job_id for number, job_id in self._ids.items()}
        write_text(self._book, json.dumps({**self._read_book(), **ids}, indent=1) + "\n")

    def _read_book(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return {**json.loads(self._book.read_text(encoding="utf-8"))}
        return {}

    def _let_go(self) -> None:
        """Take the dependency off jobs that can load their first step, as far as the limit of runs at a time allows."""
        free = self._settings.array_parallelism - len(self.running())
        for number in sorted(self._held & self._open.keys()):
            others = [job for other, job in self._open.items() if other not in self._held]
            if self._state(number) != "PENDING":
                self._held.discard(number)
            elif free > 0 and may_start(self._open[number], others):
                _ask("scontrol", "update", f"jobid={self._ids[number]}", "dependency=")
                self._held.discard(number)
                free -= 1

    def _state(self, number: int) -> str:
        """The state of a job in the queue, in SLURM's words."""
        return self._states.get(self._ids[number], "")

    def _queue(self) -> dict[str, str] | None:
        """State of each of the user's jobs by id; None where SLURM does not answer."""
        text = _ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i %T")
        if text is None:
            return None
        return {row[0]: row[1] for line in text.splitlines() if len(row := line.split()) == 2}


def parameters(settings: SlurmSettings, options: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The settings in submitit's words; `options` are further ones of sbatch."""
    given = settings.model_dump(exclude={"timeouts", "sbatch", "poll"}, exclude_none=True)
    result = {PARAMETERS.get(key, key): value for key, value in given.items() if value not in (0, ())}
    result["setup"] = [*settings.setup] or None
    further = {"requeue": True, **settings.sbatch, **(options or {})}
    return {**result, "job_name": "densecl", "stderr_to_stdout": True, "additional_parameters": further}


def _ask(*command: str) -> str | None:
    """The output of a command of SLURM; None where it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=ASK, check=True).stdout
    return None


def _reason(job_id: str) -> str:
    """The state in which a job ended, as long as SLURM remembers."""
    match = re.search(r"JobState=(\S+)", _ask("scontrol", "--oneliner", "show", "job", job_id) or "")
    return f" as {match[1]}" if match else ""
