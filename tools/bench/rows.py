"""Results: one type of row for all kinds of measurement."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.timing import Form, Spent, Stopwatch, in_turn, stopwatch

CPU = torch.device("cpu")


class Sense(Enum):
    """What the ratio of a row means; `more` says whether more is better."""

    SPEED = "times as fast as the reference"
    COST = "cost over the bare limit"
    WAITING = "share of the time of training"
    PEAK = "share of the device's peak"

    @property
    def more(self) -> bool:
        """Whether it is the reference's time over ours, so that more is better; else ours over the reference's."""
        return self in (Sense.SPEED, Sense.PEAK)


class Goal(NamedTuple):
    """What a row should reach; None: nothing is asked for.

    Attributes:
        ratio: at least this where more is better, else at most.
        memory: at most this peak of bytes, ours over the reference's.
        seconds: at most these, of ours.
    """

    ratio: float | None = None
    memory: float | None = None
    seconds: float | None = None


class Missing(NamedTuple):
    """What could not be measured here, and why."""

    kind: str
    line: str


@dataclass(frozen=True)
class Row:
    """A measurement.

    Attributes:
        kind: one of `bench.KINDS`.
        what: is measured.
        ours: name of our form. reference: name of the textbook or published form, or of the bare limit.
        sense: of the ratio.
        seconds: of our form, median. reference_seconds: of the other, median.
        ratio: median of the ratios of the turns. low, high: the least and the greatest of them.
        processor_ratio: the same of the processor's time in all threads.
        repeats: turns of each.
        memory_ratio: peak of bytes, ours over the reference's; None: not measured.
        goal: what should be reached, if anything.
        note: what a reader must know to understand it.
    """

    kind: str
    what: str
    ours: str
    reference: str
    sense: Sense
    seconds: float
    reference_seconds: float
    ratio: float
    low: float
    high: float
    processor_ratio: float | None
    repeats: int
    memory_ratio: float | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether all parts of the goal are met; None without one."""
        if self.goal is None:
            return None
        least = self.goal.ratio
        met = least is None or (self.ratio >= least if self.sense.more else self.ratio <= least)
        if self.goal.memory is not None:
            met = met and self.memory_ratio is not None and self.memory_ratio <= self.goal.memory
        return met and (self.goal.seconds is None or self.seconds <= self.goal.seconds)

    def as_json(self) -> dict[str, Any]:
        """Plain values by name."""
        plain = dict(vars(self))
        plain["sense"], plain["goal"] = self.sense.value, None if self.goal is None else self.goal._asdict()
        return {**plain, "more_is_better": self.sense.more, "met": self.met}


@dataclass(frozen=True)
class Bench:
    """How everything is measured.

    Attributes:
        repeats: turns of each form.
        device: where tensors are.
        data: folder of a VOC tree, for those that read files.
        compile: whether compiled forms are measured as well.
        watch: the clock; None: that of the device.
    """

    repeats: int = 5
    device: torch.device = CPU
    data: Path | None = None
    compile: bool = False
    watch: Stopwatch | None = None

    def compare(
        self,
        kind: str,
        what: str,
        ours: Form,
        reference: Form,
        sense: Sense,
        *,
        warmup: int = 1,
        least: float = 0.0,
        on_cpu: bool = False,
        **more: Any,
    ) -> Row:
        """Time two forms in turn.

        Args:
            kind: see `Row`.
            what: see `Row`.
            ours: our form.
            reference: the form it is held against.
            sense: of the ratio.
            warmup: see `in_turn`.
            least: see `in_turn`.
            on_cpu: the work never touches the device.
            more: further attributes of the row.
        """
        watch = self.watch or stopwatch(CPU if on_cpu else self.device)
        spent = in_turn((ours, reference), self.repeats, watch, warmup=warmup, least=least)
        return row(kind, what, (ours.name, reference.name), (spent[0], spent[1]), sense, **more)


def row(
    kind: str,
    what: str,
    names: tuple[str, str],
    spent: tuple[Sequence[Spent], Sequence[Spent]],
    sense: Sense,
    **more: Any,
) -> Row:
    """The row of times that were taken in pairs.

    Args:
        kind: see `Row`.
        what: see `Row`.
        names: of our form and of the reference.
        spent: times of both, turn by turn.
        sense: of the ratio.
        more: further attributes.
    """
    pairs = list(zip(*spent, strict=True))
    ratios = [_ratio(a.seconds, b.seconds, sense) for a, b in pairs]
    work = [_ratio(a.processor, b.processor, sense) for a, b in pairs if a.processor and b.processor]
    return Row(
        kind,
        what,
        *names,
        sense,
        seconds=statistics.median(a.seconds for a, _ in pairs),
        reference_seconds=statistics.median(b.seconds for _, b in pairs),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        processor_ratio=statistics.median(work) if work else None,
        repeats=len(pairs),
        **more,
    )


def _ratio(ours: float, reference: float, sense: Sense) -> float:
    return reference / ours if sense.more else ours / reference
