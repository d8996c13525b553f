"""The engine `local`: so many processes at a time on this machine."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import filelock

from densecl.sweep import launch
from densecl.sweep.engine import Ended
from densecl.sweep.jobs import Job
from densecl.sweep.schedule import in_order, may_start

PATIENCE = 60.0  # seconds to wait for a run's folder


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(jobs: Sequence[Job]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is to be for each slot; none where runs compute on the CPU or name their GPU."""
    import torch

    if not jobs or any(job.plan.settings.device != "cuda" for job in jobs):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(k) for k in range(torch.cuda.device_count())]


@dataclass
class Running:
    """A job and its process, in a slot."""

    job: Job
    process: Popen[bytes]
    slot: int


@dataclass
class Local:
    """Runs each job as a process of its own, which ends with this one.

    Attributes:
        jobs: to do. logs: file of each job, by number. slots: how many run at a time. threads: of each.
        devices: GPUs, which the slots share evenly; none for the CPU.
    """

    jobs: Sequence[Job]
    logs: dict[int, Path]
    slots: int
    threads: int = 1
    devices: Sequence[str] = ()
    interval: float = 0.2
    _open: list[Job] = field(init=False)
    _running: list[Running] = field(init=False, default_factory=list)
    _seen_held: dict[int, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._open = in_order(self.jobs)

    def poll(self) -> list[Ended]:
        """Collect processes that ended, then fill their slots."""
        ended = []
        for entry in [entry for entry in self._running if entry.process.poll() is not None]:
            self._running.remove(entry)
            ended.append(self._result(entry))
        while len(self._running) < self.slots:
            running = self.running()
            job = next((job for job in self._open if may_start(job, running) and not self._held_elsewhere(job)), None)
            if job is None:
                break
            self._open.remove(job)
            taken = {entry.slot for entry in self._running}
            slot = next(k for k in range(self.slots) if k not in taken)
            device = {"CUDA_VISIBLE_DEVICES": self.devices[slot % len(self.devices)]} if self.devices else None
            process = launch.start(job.words, self.logs[job.number], self.threads, device)
            self._running.append(Running(job, process, slot))
        return ended

    def _held_elsewhere(self, job: Job) -> bool:
        """Whether another process has the run's folder: one of a sweep that was killed takes a moment to end.

        After a while the run is started all the same, and says that its folder is in use.
        """
        lock = job.plan.folder / ".lock"
        since = self._seen_held.setdefault(job.number, time.monotonic())
        if not lock.exists() or time.monotonic() - since > PATIENCE:
            return False
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(lock, timeout=0):
            return False
        return True

    def _result(self, entry: Running) -> Ended:
        code = launch.release(entry.process)
        if code == 0:
            return Ended(entry.job)
        lines = tuple(launch.last_lines(self.logs[entry.job.number]))
        return Ended(entry.job, launch.explain_exit(code), lines)

    def running(self) -> list[Job]:
        """The jobs that run now."""
        return [entry.job for entry in self._running]

    def waiting(self) -> int:
        """How many jobs have not begun."""
        return len(self._open)

    def stop(self) -> str:
        """End the processes; each goes on where it was when the same command is given again."""
        launch.stop(entry.process for entry in self._running)
        self._running.clear()
        return "stopped; the same command goes on"
