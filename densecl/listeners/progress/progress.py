"""Progress of a run: a listener that draws bars on a terminal and says plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from densecl.listeners.events import Listener, Look, Start, StepStart
from densecl.listeners.progress.bars import Row, fit, rows
from densecl.listeners.progress.counter import Counter
from densecl.listeners.progress.estimate import Estimate
from densecl.listeners.progress.stream import ascii_only, make_console, say
from densecl.records.record import StepRecord
from densecl.tables.forms.cells import humanise

FRAMES = 2  # a second
SOONEST, LATEST = 30.0, 600.0  # seconds between plain lines inside a step: at each tenth of it, within these bounds


class Progress(Listener):
    """How a run goes, on standard error.

    On a terminal three lines that redraw themselves: the run, its step, and the newest numbers; what takes time besides
    gets a line of its own. Elsewhere a line when a step begins and ends, and at each tenth of a long one.

    Args:
        quiet: show nothing. verbose: a line for each epoch too. console: where; default standard error.
        clock: seconds, for tests.
    """

    name = "progress"

    def __init__(
        self,
        quiet: bool = False,
        verbose: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.console = console or make_console()
        self.quiet, self.verbose, self._clock = quiet, verbose, clock
        self._live: Live | None = None
        self._estimate = Estimate((), clock())
        self._step: StepStart | None = None  # in training
        self._look: Look | None = None
        self._doing = "preparing"  # between steps
        self._miou = ""
        self._counters: dict[str, Counter] = {}
        self._said, self._spoken = clock(), 0  # when, and at which iteration, the last plain line was said

    # ---- on its own, for commands without a run

    def scan(self, what: str) -> Counter:
        """A callable (done, total), and a context, for scans of files."""
        counter = Counter(self.console, what, self.quiet, self._clock)
        self._counters[what] = counter
        return counter

    # ---- as a listener

    def line(self, text: str) -> None:
        """One line, unless quiet."""
        if not self.quiet:
            for counter in self._counters.values():
                counter.clear()
            say(self.console, text)

    def run_started(self, start: Start) -> None:
        """Draw from now on."""
        self._estimate = Estimate(start.iterations, self._clock())
        if start.record.steps:
            self._estimate.step_finished(start.record.steps[-1].step, self._clock())
        for counter in self._counters.values():
            counter.clear()
        self._counters.clear()  # of what came before
        if not self.quiet and self.console.is_interactive:
            both = sys.stdout.isatty()  # else what goes to a file would land on the screen
            self._live = Live(
                get_renderable=self._frame,
                console=self.console,
                refresh_per_second=FRAMES,
                transient=True,
                redirect_stdout=both,
            )
            self._live.start()

    def counted(self, what: str, done: int, total: int) -> None:
        """Of work beside training: a line of its own among the bars."""
        if self.quiet:
            return
        counter = self._counters.get(what) or self.scan(what)
        if self._live is None:
            counter(done, total)
        else:
            counter.count(done, total)
        if done >= total:
            self._counters.pop(what, None)

    def step_started(self, start: StepStart) -> None:
        """A step begins to train, or goes on."""
        self._step, self._look, self._said, self._spoken = start, None, self._clock(), start.done
        self._estimate.step_started(start.step, start.done)
        if self._live is None:
            length = f"{_count(start.iterations, 'iteration')} in {_count(start.epochs, 'epoch')}"
            self.line(f"{self._name(start.step)} begins: {length}" + (f", {start.done} are done" * (start.done > 0)))

    def looked(self, look: Look) -> None:
        """New numbers."""
        now = self._clock()
        self._look = look
        self._estimate.looked(look.iteration, now)
        assert self._step is not None
        if self._live is None and look.iteration < self._step.iterations:
            waited = now - self._said
            tenth = 10 * look.iteration // self._step.iterations > 10 * self._spoken // self._step.iterations
            if waited >= LATEST or (tenth and waited >= SOONEST):
                self._said, self._spoken = now, look.iteration
                self.line(f"{self._name(look.step)}: {', '.join(self._plain(look))}")

    def epoch_finished(self, look: Look) -> None:
        """A line, if verbose."""
        if self.verbose:
            epochs = self._step.epochs if self._step else 0
            self.line(f"{self._name(look.step)}, epoch {look.epoch + 1} of {epochs}: {', '.join(_numbers(look))}")

    def evaluating(self, step: int) -> None:
        """Training of a step is done."""
        self._step, self._doing = None, f"evaluating step {step + 1}"

    def step_finished(self, step: StepRecord) -> None:
        """A step is evaluated."""
        self._estimate.step_finished(step.step, self._clock())
        self._step, self._look, self._doing = None, None, "preparing"
        self._miou = headline(step)
        how = "loaded" if step.shared else f"{_count(step.iterations, 'iteration')} in {_seconds(step.seconds)}"
        self.line(f"{self._name(step.step)}: {how}{_scores(step)}")

    def run_finished(self, status: str) -> None:
        """Stop drawing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    # ---- what is drawn

    def _frame(self) -> Group:
        """The lines of this moment, none wider than the terminal."""
        return Group(*self.lines(self.console.width))

    def lines(self, width: int) -> list[Text]:
        """The run, its step, the newest numbers and what takes time besides, each at most `width` columns wide."""
        now, estimate, step, look = self._clock(), self._estimate, self._step, self._look
        plain = ascii_only(self.console)
        total = len(estimate.iterations)
        left = estimate.left(now)
        where = f"step {step.step + 1} of {total}" if step else self._doing
        bars = [Row("run", estimate.share(), [where, *_left(left)])]
        if step is not None:
            done = look.iteration if look else step.done
            epoch = max(0, done - 1) // max(1, step.batches) + 1
            batch = done - (epoch - 1) * step.batches
            place = [f"epoch {epoch} of {step.epochs}", f"batch {batch} of {step.batches}"]
            place += _left(estimate.step_left(now))
            bars.append(Row("step", done / max(1, step.iterations), place))
        found = rows(bars, width, plain)
        numbers = [*([self._miou] if self._miou else []), *(_numbers(look) if look else [])]
        if numbers:
            found.append(Text(fit(numbers, width), no_wrap=True))
        return found + rows([counter.row() for counter in tuple(self._counters.values())], width, plain)

    def _plain(self, look: Look) -> list[str]:
        """The newest numbers for a plain line."""
        assert self._step is not None
        share = 100 * look.iteration / self._step.iterations
        left = self._estimate.left(self._clock())
        place = [f"{share:.0f}%", f"epoch {look.epoch + 1} of {self._step.epochs}"]
        return [*place, *_numbers(look), *(f"{text} of the run" for text in _left(left))]

    def _name(self, step: int) -> str:
        return f"step {step + 1} of {len(self._estimate.iterations)}"


def headline(step: StepRecord) -> str:
    """The score of a step in two words: of the newest task where there are several."""
    if not step.evaluations:
        return ""
    name, value = _first(step.evaluations[-1].metrics)
    return f"{name} {_shown(value)}"


def _scores(step: StepRecord) -> str:
    """What a finished step scored, to follow other words."""
    if not step.evaluations:
        return ""
    if step.model is not None:  # a sequence of tasks
        found = ((each.task, *_first(each.metrics)) for each in step.evaluations)
        return "; " + ", ".join(f"{task} {name} {_shown(value)}" for task, name, value in found)
    metrics = step.evaluations[0].metrics
    miou, lost = metrics["miou"]["all"], metrics["forgetting"]
    text = "" if miou is None else f", mIoU {miou:.3f}"
    return text + ("" if lost is None else f", forgetting {round(lost, 3) + 0.0:.3f}")  # + 0.0: no -0.000


def _first(metrics: Mapping[str, Any]) -> tuple[str, float | None]:
    """The first score of a task: records keep the one it is ranked by first."""
    name, value = next(iter(metrics.items()))
    return "mIoU" if name == "miou" else name, value["all"] if isinstance(value, dict) else value


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"


def _numbers(look: Look) -> list[str]:
    """Losses by name, then images per second."""
    speed = (
        []
        if look.speed is None
        else [f"{look.speed:.3g} images/s" if look.speed < 100 else f"{look.speed:.0f} images/s"]
    )
    return [*(f"{name} {value:.3f}" for name, value in look.losses.items()), *speed]


def _left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"{humanise(seconds)} left"]


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else humanise(seconds)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
