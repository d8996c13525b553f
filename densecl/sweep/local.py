"""The engine `local`: so many runs at a time on this machine, each submitted when a slot is free.

By hand is what submitit's local executor lacks: slots with a GPU each, runs that end with the sweep however it ends
(submitit's live on), and time to write what is pending (submitit gives them a second).
"""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import filelock
import submitit
from submitit.core.utils import UncompletedJobError

from densecl.sweep.engine import Ended, Engine
from densecl.sweep.jobs import Job
from densecl.sweep.launch import PATIENCE, explain_exit
from densecl.sweep.schedule import may_start

HELD = 60.0  # seconds to wait for a run's folder that another process holds
FOREVER = 10**7  # minutes that a run may take; submitit would end it after two
FROM_TERMINAL = {signal.SIGINT, signal.SIGHUP}  # what a terminal sends to a sweep and to all processes of its group


class Local(Engine):
    """Runs each job as a process of its own, which ends with this one.

    Args:
        slots: how many run at a time. devices: GPUs, which the slots share evenly; none for the CPU.
    """

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
        deadline = time.monotonic() + PATIENCE + 10
        while time.monotonic() < deadline and not all(task.done() for _, task in self._running.values()):
            time.sleep(0.05)
        self._close()
        return "stopped; the same command goes on"

    def _submit(self, job: Job, slot: int) -> submitit.Job[int]:
        devices = self._devices or (os.environ.get("CUDA_VISIBLE_DEVICES"),)  # submitit hides all of them
        launch = self._launch(job, self._pipe, CUDA_VISIBLE_DEVICES=devices[slot % len(devices)])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINAL)  # is inherited: Ctrl-C is for the sweep alone
        try:
            return self._executor.submit(launch)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _result(self, job: Job, task: submitit.Job[int]) -> Ended:
        try:
            code = task.result()
        except UncompletedJobError as error:  # of submitit's process, not of the run; it holds a traceback
            reasons = [line for line in str(error).splitlines() if "Error" in line] or ["its watcher was killed"]
            return self._end(job, f"it could not be watched: {reasons[-1].strip()}")
        return self._end(job, explain_exit(code) if code else "")

    def _held_elsewhere(self, job: Job) -> bool:
        """Whether another process has the run's folder: one of a sweep that was killed takes a moment to end.

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
