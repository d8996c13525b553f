"""What both engines of a sweep have in common: jobs that have not ended, each launched by a job of submitit."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from densecl.sweep import launch
from densecl.sweep.jobs import Job
from densecl.sweep.schedule import in_order


class Ended(NamedTuple):
    """A run that ended, and what is wrong where it did not finish; `lines` are the last it wrote."""

    job: Job
    problem: str = ""
    lines: tuple[str, ...] = ()


class Engine(ABC):
    """Carries out jobs; every method returns soon. `said` is a line about its start, where there is one.

    Args:
        logs: file of each job, by number. threads: of each run. interval: seconds between two polls.
    """

    said = ""

    def __init__(self, jobs: Sequence[Job], logs: Mapping[int, Path], threads: int, interval: float):
        self._open = {job.number: job for job in in_order(jobs)}  # have not ended
        self._logs, self._threads, self.interval = logs, str(threads), interval

    @abstractmethod
    def poll(self) -> list[Ended]:
        """Start what can start; what has ended since the last call."""

    @abstractmethod
    def running(self) -> list[Job]:
        """The jobs that run now."""

    @abstractmethod
    def stop(self) -> str:
        """Leave off before all has ended; a sentence about what becomes of the rest."""

    def waiting(self) -> int:
        """How many jobs have not begun."""
        return len(self._open) - len(self.running())

    def _launch(self, job: Job, sweep: Path | None = None, **variables: str | None) -> launch.Launch:
        """The function that submitit calls for a job."""
        variables |= {"OMP_NUM_THREADS": self._threads, "MKL_NUM_THREADS": self._threads}
        return launch.Launch(launch.RUN, job.words, self._logs[job.number].absolute(), variables, sweep)

    def _end(self, job: Job, problem: str = "") -> Ended:
        """Note that a job has ended."""
        del self._open[job.number]
        return Ended(job, problem, launch.last_lines(self._logs[job.number]) if problem else ())
