"""One way of measuring for all kinds: forms run in turn in one process, after a warm-up, the device waited for."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


class Spent(NamedTuple):
    """What a piece of work took.

    Attributes:
        seconds: on the clock; of a GPU, between an event before and an event after the work.
        processor: seconds of the processor in all threads of this process, which other programs disturb less.
    """

    seconds: float
    processor: float


Stopwatch = Callable[[Callable[[], object]], Spent]


@dataclass(frozen=True)
class Form:
    """One way of doing a piece of work.

    Attributes:
        name: as the table has it.
        work: what is timed; it is given what `prepare` made, if there is one.
        prepare: called before each turn, outside the time.
        scale: what the time is multiplied by; for a form too slow for the whole, which is given a part of it.
    """

    name: str
    work: Callable[..., object]
    prepare: Callable[[], Any] | None = None
    scale: float = 1.0


def stopwatch(device: torch.device) -> Stopwatch:
    """The watch for work on a device, with nothing else under way there; a GPU's own events are its clock."""
    if device.type == "cuda":
        return _on_gpu(device)
    return _on_clock(torch.mps.synchronize if device.type == "mps" else lambda: None)


def in_turn(
    forms: Sequence[Form], repeats: int, watch: Stopwatch, *, warmup: int = 1, least: float = 0.0
) -> list[list[Spent]]:
    """Time forms in turn; every second turn in the opposite order, so that a drift of the machine cancels out.

    Args:
        forms: K ways of doing the same.
        repeats: turns of each that count.
        watch: of the device.
        warmup: turns of each before them.
        least: seconds that a turn shall take: short work is done several times, its mean counts. A form with a
            `prepare` is done once.

    Returns:
        K lists of `repeats` times of one call, turn by turn.
    """
    calls = [1] * len(forms)
    for k, form in enumerate(forms):
        last = [_turn(form, watch, 1) for _ in range(warmup)][-1:]
        if last and least and form.prepare is None:
            calls[k] = max(1, math.ceil(least * form.scale / max(last[0].seconds, 1e-9)))
    spent: list[list[Spent]] = [[] for _ in forms]
    for turn in range(repeats):
        order = range(len(forms)) if turn % 2 == 0 else reversed(range(len(forms)))
        for k in order:
            spent[k].append(_turn(forms[k], watch, calls[k]))
    return spent


def _turn(form: Form, watch: Stopwatch, calls: int) -> Spent:
    given = () if form.prepare is None else (form.prepare(),)

    def work() -> None:
        for _ in range(calls):
            form.work(*given)

    seconds, processor = watch(work)
    return Spent(seconds * form.scale / calls, processor * form.scale / calls)


def _on_clock(wait: Callable[[], object]) -> Stopwatch:
    def watch(work: Callable[[], object]) -> Spent:
        wait()
        start, used = time.perf_counter(), time.process_time()
        work()
        wait()
        return Spent(time.perf_counter() - start, time.process_time() - used)

    return watch


def _on_gpu(device: torch.device) -> Stopwatch:
    def watch(work: Callable[[], object]) -> Spent:
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            used = time.process_time()
            start.record()
            work()
            end.record()
            end.synchronize()
            return Spent(start.elapsed_time(end) / 1000, time.process_time() - used)

    return watch
