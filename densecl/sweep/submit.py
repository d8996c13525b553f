"""Runs carried out through submitit: what both engines share, and the engine `local`; `slurm` has the other.

By hand is what submitit's local executor lacks: slots with a GPU each, runs that end with the sweep however it ends
(submitit's live on), and time to write what is pending (submitit gives them a second).
"""

import contextlib
import os
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import filelock
import submitit
from submitit.core.utils import UncompletedJobError

from densecl.sweep import launch
from densecl.sweep.jobs import Job, in_order, may_start

HELD = 60.0  # seconds to wait for a run's folder that another process holds
FOREVER = 10**7  # minutes that a run may take; submitit would end it after two
FROM_TERMINAL = {signal.SIGINT, signal.SIGHUP}  # what a terminal sends to a sweep and to all processes of its group


class Ended(NamedTuple):
    """A run that ended, and what is wrong where it did not finish; `lines` are the last it wrote."""

    job: Job
    problem: str = ""
    lines: tuple[str, ...] = ()


class Engine(ABC):
    """Carries out jobs; every method returns soon."""

    said = ""  # a line about its start, where there is one

    def __init__(self, jobs: Sequence[Job], logs: Mapping[int, Path], threads: int, interval: float):
        self._open = {job.number: job for job in in_order(jobs)}  # have not ended
        self._logs, self._threads, self.interval = logs, str(threads), interval

    @abstractmethod
    def poll(self) -> list[Ended]:
        """Start the jobs that may start, and collect those that ended since the last call."""

    @abstractmethod
    def running(self) -> list[Job]:
        """The jobs that run now."""

    @abstractmethod
    def stop(self) -> str:
        """Leave off before all has ended; a sentence about what becomes of the rest."""

    def waiting(self) -> int:
        """The number of jobs that have not begun."""
        return len(self._open) - len(self.running())

    def _launch(self, job: Job, sweep: Path | None = None, **variables: str | None) -> launch.Launch:
        """The function that submitit calls for a job."""
        variables |= {"OMP_NUM_THREADS": self._threads, "MKL_NUM_THREADS": self._threads}
        return launch.Launch(launch.RUN, job.words, self._logs[job.number].absolute(), variables, sweep)

    def _end(self, job: Job, problem: str = "") -> Ended:
        """Note that a job has ended."""
        del self._open[job.number]
        return Ended(job, problem, launch.last_lines(self._logs[job.number]) if problem else ())


class Local(Engine):
    """Runs each job as a process of its own, which ends with this one; slots share the GPUs in `devices` evenly."""

    def __init__(
        self, jobs: Sequence[Job], logs: Mapping[int, Path], slots: int, threads: int = 1, devices: Sequence[str] = ()
    ):
        super().__init__(jobs, logs, threads, interval=0.2)
        self._slots, self._devices = slots, devices
        self._running: dict[int, tuple[Job, submitit.Job[int]]] = {}  # by slot
        self._seen_held: dict[int, float] = {}
        # of this user alone: submitit pickles there
        self._folder = tempfile.TemporaryDirectory(prefix="densecl-sweep-", ignore_cleanup_errors=True)
        self._pipe = Path(self._folder.name, "sweep")
        os.mkfifo(self._pipe)
        self._held_open = self._pipe.open("r+b", buffering=0)
        self._executor = submitit.LocalExecutor(self._folder.name)
        self._executor.update_parameters(timeout_min=FOREVER, stderr_to_stdout=True)

    def poll(self) -> list[Ended]:
        """Collect runs that ended, then fill their slots."""
        ended = []
        for slot, (job, task) in list(self._running.items()):
            if task.done():
                del self._running[slot]
                ended.append(self._result(job, task))
        for slot in [slot for slot in range(self._slots) if slot not in self._running]:
            running = self.running()
            waiting = [job for job in self._open.values() if job not in running]
            job = next((job for job in waiting if may_start(job, running) and not self._held_elsewhere(job)), None)
            if job is None:
                break
            self._running[slot] = job, self._submit(job, slot)
        if not self._open:
            self._close()
        return ended

    def running(self) -> list[Job]:
        """The jobs that run now."""
        return [job for job, _ in self._running.values()]

    def stop(self) -> str:
        """End the runs; each goes on where it was when the same command is given again."""
        self._held_open.close()
        deadline = time.monotonic() + launch.PATIENCE + 10
        while time.monotonic() < deadline and not all(task.done() for _, task in self._running.values()):
            time.sleep(0.05)
        self._close()
        return "stopped; the same command goes on"

    def _submit(self, job: Job, slot: int) -> submitit.Job[int]:
        devices = self._devices or (os.environ.get("CUDA_VISIBLE_DEVICES"),)  # submitit hides all of them
        function = self._launch(job, self._pipe, CUDA_VISIBLE_DEVICES=devices[slot % len(devices)])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINAL)  # is inherited: Ctrl-C is for the sweep alone
        try:
            return self._executor.submit(function)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _result(self, job: Job, task: submitit.Job[int]) -> Ended:
        try:
            code = task.result()
        except UncompletedJobError as error:  # of submitit's process, not of the run; it holds a traceback
            reasons = [line for line in str(error).splitlines() if "Error" in line] or ["its watcher was killed"]
            return self._end(job, f"it could not be watched: {reasons[-1].strip()}")
        return self._end(job, launch.explain_exit(code) if code else "")

    def _held_elsewhere(self, job: Job) -> bool:
        """True if another process has the run's folder: one of a sweep that was killed takes a moment to end.

        After a while the run is started all the same, and says that its folder is in use.
        """
        lock = job.plan.folder / ".lock"
        since = self._seen_held.setdefault(job.number, time.monotonic())
        if not lock.exists() or time.monotonic() - since > HELD:
            return False
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(lock, timeout=0):
            return False
        return True

    def _close(self) -> None:
        self._running.clear()
        self._held_open.close()
        self._folder.cleanup()
