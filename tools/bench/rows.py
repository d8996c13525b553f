"""Two forms timed in turn on the clock of torch.utils.benchmark, and the row that compares them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.benchmark import Measurement, TaskSpec, timer  # this clock waits for a GPU

# what a ratio means: the reference's time over ours, then ours over the reference's
SPEED, PEAK = "times as fast as the reference", "share of the device's peak"
COST, WAITING = "cost over the bare limit", "share of the time of training"


class Goal(NamedTuple):
    """The least that a row should reach; None: not asked for."""

    ratio: float | None = None  # at least this where more is better, else at most
    memory: float | None = None  # at most this peak of bytes, ours over the reference's
    seconds: float | None = None  # at most these, of our form


class Missing(NamedTuple):
    """A measurement that could not be made here, and why."""

    line: str
    kind: str = ""


class Spent(NamedTuple):
    """Seconds: on the clock, and of the processor in all threads, which other programs disturb less."""

    clock: float
    processor: float = 0.0


@dataclass(frozen=True)
class Form:
    """One way of doing a piece of work."""

    name: str
    work: Callable[..., object]  # is timed; gets what `prepare` returned, if there is one
    prepare: Callable[[], Any] | None = None  # called before each turn, outside the time
    scale: float = 1.0  # the time is multiplied by it; for a form that is given only a part of the work


@dataclass(frozen=True)
class Row:
    """Our form beside a textbook or published form, or beside the bare limit."""

    what: str
    names: tuple[str, str]  # of ours and of the reference
    turns: Sequence[Sequence[Spent]]  # both of each turn
    sense: str  # of the ratio
    memory: float | None = None  # peak of bytes, ours over the reference's
    goal: Goal | None = None
    note: str = ""
    kind: str = ""

    @property
    def more(self) -> bool:
        """True if more is better."""
        return self.sense in (SPEED, PEAK)

    @property
    def seconds(self) -> tuple[float, float]:
        """Medians of ours and of the reference."""
        return median([ours.clock for ours, _ in self.turns]), median([reference.clock for _, reference in self.turns])

    @property
    def ratio(self) -> Measurement:
        """The ratios of the turns, with their median and interquartile range."""
        return measured([b.clock / a.clock if self.more else a.clock / b.clock for a, b in self.turns])

    @property
    def processor(self) -> float | None:
        """The median ratio in time of the processor."""
        pairs = [(a.processor, b.processor) for a, b in self.turns if a.processor and b.processor]
        return median([b / a if self.more else a / b for a, b in pairs]) if pairs else None

    @property
    def met(self) -> bool | None:
        """True if all parts of the goal are met; None without one."""
        if self.goal is None:
            return None
        ratio, (wanted, memory, seconds) = self.ratio.median, self.goal
        reached = wanted is None or (ratio >= wanted if self.more else ratio <= wanted)
        reached = reached and (memory is None or (self.memory is not None and self.memory <= memory))
        return reached and (seconds is None or self.seconds[0] <= seconds)

    def as_json(self) -> dict[str, Any]:
        """Plain values by name."""
        plain = {**vars(self), "goal": None if self.goal is None else self.goal._asdict(), "turns": len(self.turns)}
        computed = {"seconds": self.seconds, "ratio": self.ratio.median, "iqr": self.ratio.iqr}
        return {**plain, **computed, "processor": self.processor, "more_is_better": self.more, "met": self.met}


@dataclass(frozen=True)
class Bench:
    """Settings of the measurements."""

    repeats: int = 5  # turns of each form
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    data: Path | None = None  # folder of a VOC tree, for kinds that read files
    compile: bool = False  # measure compiled forms as well

    def compare(
        self, what: str, ours: Form, reference: Form, sense: str, *, least: float = 0.0, warmup: int = 1, **more: Any
    ) -> Row:
        """The row of two forms; `more` are its further attributes."""
        turns = in_turn((ours, reference), self.repeats, least, warmup)
        return Row(what, (ours.name, reference.name), turns, sense, **more)


def measured(values: Sequence[float]) -> Measurement:
    """Numbers with their median and interquartile range."""
    return Measurement(1, list(values), TaskSpec("", ""))


def median(values: Sequence[float]) -> float:
    """As torch.utils.benchmark has it."""
    return measured(values).median


def in_turn(forms: Sequence[Form], repeats: int, least: float = 0.0, warmup: int = 1) -> list[list[Spent]]:
    """Time forms in turn; every second turn in the opposite order, so that a drift of the machine cancels out.

    `benchmark.Timer` calls a form several times for each setup, and forms that use up what they are given cannot be.

    Args:
        forms: ways of doing the same.
        repeats: turns of each form.
        least: seconds of a turn: shorter work without a `prepare` is repeated, and its mean counts.
        warmup: turns of each form that are not counted.
    """
    calls = [1] * len(forms)
    for k, form in enumerate(forms):
        last = [_turn(form, 1).clock for _ in range(warmup)][-1:]
        if last and least and form.prepare is None:
            calls[k] = max(1, math.ceil(least * form.scale / max(last[0], 1e-9)))
    turns = []
    for turn in range(repeats):
        order = range(len(forms)) if turn % 2 == 0 else reversed(range(len(forms)))
        spent = {k: _turn(forms[k], calls[k]) for k in order}
        turns.append([spent[k] for k in range(len(forms))])
    return turns


def _turn(form: Form, calls: int) -> Spent:
    """The mean of some calls."""
    arguments = () if form.prepare is None else (form.prepare(),)
    start, used = timer(), time.process_time()
    for _ in range(calls):
        form.work(*arguments)
    spent = timer() - start, time.process_time() - used
    return Spent(*(seconds * form.scale / calls for seconds in spent))
