"""Events of a run, told once to all who listen: progress, TensorBoard, Weights & Biases.

The loop and the runner tell `Listeners`; it reads the losses for all of them together, seldom enough that a GPU is not
kept waiting, and hands on plain numbers. A listener overrides the methods of `Listener` that it needs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from densecl.errors import first_line
from densecl.records.record import Record, StepRecord

LOOK = 0.5  # seconds between looks at the loss on an accelerator, each of which waits for it
LOOK_CPU = 0.1  # where a look costs nothing, but what listeners do with it does


class Start(NamedTuple):
    """A run that begins or goes on."""

    folder: Path
    record: Record  # names, settings, and the steps that are finished
    iterations: tuple[int, ...]  # planned of each step
    resumed: bool  # it goes on from something that was trained before

    def iterations_before(self, step: int) -> int:
        """Iterations of all earlier steps."""
        return sum(self.iterations[:step])


class StepStart(NamedTuple):
    """A step that begins to train, or goes on."""

    step: int
    epochs: int
    iterations: int
    batches: int  # of an epoch
    done: int  # iterations trained before a kill


class Look(NamedTuple):
    """The numbers of training at an iteration."""

    step: int
    epoch: int  # counted from 0
    iteration: int  # trained in this step
    losses: Mapping[str, float]
    rates: tuple[float, ...]  # learning rate of each group of parameters; empty at the end of an epoch
    speed: float | None  # images per second, of all processes, since the look before; None for the first

    def scalars(self) -> dict[str, float]:
        """Losses and speed by the names that curves have."""
        losses = {f"loss/{name}": value for name, value in self.losses.items()}
        return losses if self.speed is None else {**losses, "images_per_second": self.speed}


class Listener:
    """Hears what happens in a run. Every method does nothing here; called in the main process alone."""

    name = "a listener"

    def run_started(self, start: Start) -> None:
        """Training is about to begin. An exception ends the run: nothing can be lost yet."""

    def line(self, text: str) -> None:
        """Something that a person should know."""

    def counted(self, what: str, done: int, total: int) -> None:
        """So many of so many are done of some work beside training; it is over at `done == total`."""

    def step_started(self, start: StepStart) -> None:
        """A step begins to train."""

    def looked(self, look: Look) -> None:
        """The numbers of an iteration; not of every one."""

    def epoch_finished(self, look: Look) -> None:
        """The numbers at the end of an epoch, of every one."""

    def evaluating(self, step: int) -> None:
        """Training of a step is done, its evaluation begins."""

    def step_finished(self, step: StepRecord) -> None:
        """A step is trained and evaluated."""

    def run_finished(self, status: str) -> None:
        """The end: finished, interrupted or failed; also where the start failed."""


class Listeners:
    """Tells several listeners, in their order; a context around the training of a run, which says how it ended.

    A listener that raises once training has begun is dropped, and that is said: a full disk under event files or a
    network that went away must not cost a run its results. Before training it ends the run, so that whoever asked for
    it learns so at once.
    """

    def __init__(self, listeners: Sequence[Listener] = (), clock: Callable[[], float] = time.perf_counter):
        self._all = list(listeners)
        self._clock = clock
        self._world = 1
        self._step = StepStart(0, 0, 0, 0, 0)
        self._looked = -LOOK
        self._mark: float | None = None  # since when images are counted
        self._images = 0
        self._speed: float | None = None

    def __enter__(self) -> "Listeners":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        ended = "finished" if kind is None else "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        self._tell("run_finished", ended)

    # ---- from the runner

    def run_started(self, start: Start) -> None:
        """See `Listener`; exceptions are not held back."""
        self._world = int(start.record.environment.get("world", 1))
        for listener in self._all:
            listener.run_started(start)

    def line(self, text: str) -> None:
        """Something that a person should know."""
        self._tell("line", text)

    def scan(self, what: str) -> Callable[[int, int], None]:
        """A callable (done, total) for work beside training."""

        def counted(done: int, total: int) -> None:
            self._mark = None  # this time is not training's
            self._tell("counted", what, done, total)

        return counted

    def evaluating(self, step: int) -> None:
        """Training of a step is done."""
        self._tell("evaluating", step)

    def step_finished(self, step: StepRecord) -> None:
        """A step is trained and evaluated."""
        self._tell("step_finished", step)

    # ---- from the loop, see `densecl.training.loop.Events`

    def step_started(self, step: int, epochs: int, iterations: int, batches: int, done: int) -> None:
        """A step begins to train, or goes on after `done` iterations."""
        self._step = StepStart(step, epochs, iterations, batches, done)
        self._mark = self._speed = None
        self._tell("step_started", self._step)

    def iteration(
        self, epoch: int, iteration: int, loss_terms: Mapping[str, Any], samples: int, rates: Sequence[float]
    ) -> None:
        """An iteration is done; its losses are read if it is time to, and at the end of a step."""
        if not self._all:
            return
        now = self._clock()
        if self._mark is None:  # the first of a step also starts workers, and what comes before it takes its time
            self._mark, self._images = now, 0
        else:
            self._images += samples * self._world
        on_cpu = all(getattr(term, "device", None) is None or term.device.type == "cpu" for term in loss_terms.values())
        if now - self._looked < (LOOK_CPU if on_cpu else LOOK) and iteration < self._step.iterations:
            return
        losses = _numbers(loss_terms)
        self._looked = now = self._clock()  # after the device was waited for
        if self._images and now > self._mark:
            self._speed = self._images / (now - self._mark)
            self._mark, self._images = now, 0
        self._tell("looked", Look(self._step.step, epoch, iteration, losses, tuple(rates), self._speed))

    def epoch_finished(self, epoch: int, iteration: int, loss_terms: Mapping[str, Any]) -> None:
        """An epoch is done; the loop has waited for the device, so reading costs nothing."""
        if self._all:
            look = Look(self._step.step, epoch, iteration, _numbers(loss_terms), (), self._speed)
            self._tell("epoch_finished", look)

    def _tell(self, event: str, *values: Any) -> None:
        for listener in tuple(self._all):
            try:
                getattr(listener, event)(*values)
            except Exception as error:
                self._all.remove(listener)
                reason = first_line(error)
                self._tell("line", f"{listener.name} is left out from here on: {reason}; the run goes on")


def scores(step: StepRecord, record: Record) -> dict[str, float]:
    """The numbers of a finished step by name, those that exist: `miou/all`, `iou/cat`, `forgetting`.

    Of a sequence of tasks each name begins with its task: `colours/mse`.
    """
    numbers: dict[str, float | None] = {}
    for evaluation in step.evaluations:
        prefix = f"{evaluation.task}/" if record.tasks else ""
        names = next((task.class_names for task in record.tasks if task.name == evaluation.task), record.class_names)
        for key, value in evaluation.metrics.items():
            if isinstance(value, list):
                value = dict(zip(names, value, strict=False))
            if isinstance(value, dict):
                numbers |= {f"{prefix}{key}/{part}": number for part, number in value.items()}
            else:
                numbers[prefix + key] = value
    return {key.replace(" ", "_"): float(value) for key, value in numbers.items() if value is not None}


def _numbers(terms: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(term.detach() if hasattr(term, "detach") else term) for name, term in terms.items()}
