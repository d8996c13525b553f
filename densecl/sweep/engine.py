"""What a sweep asks of the engine that carries out its runs."""

from typing import NamedTuple, Protocol

from densecl.sweep.jobs import Job


class Ended(NamedTuple):
    """A run that ended, and what is wrong where it did not finish; `lines` are the last it wrote."""

    job: Job
    problem: str = ""
    lines: tuple[str, ...] = ()


class Engine(Protocol):
    """Carries out jobs; every method returns soon."""

    interval: float  # seconds between two calls of `poll`

    def poll(self) -> list[Ended]:
        """Start what can start; what has ended since the last call."""
        ...

    def running(self) -> list[Job]:
        """The jobs that run now."""
        ...

    def waiting(self) -> int:
        """How many jobs have not begun."""
        ...

    def stop(self) -> str:
        """Leave off before all has ended; a sentence about what becomes of the rest."""
        ...
