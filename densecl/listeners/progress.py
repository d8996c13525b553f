"""Progress on standard error: bars that redraw themselves on a terminal, plain lines with the time of day elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from rich.console import Console
from rich.progress import Task
from rich.segment import Segments

from densecl.listeners.bars import Bars, Estimate
from densecl.listeners.events import Listener, Look, Start, StepStart
from densecl.records.record import StepRecord
from densecl.terminal import humanise, say, stderr_console

SOONEST, LATEST = 30.0, 600.0  # seconds between plain lines inside a step: at each tenth of it, within these bounds
REFRESH = 0.25  # seconds between two drawings of a count that stands alone
CERTAIN = 5.0  # percent or seconds of a count from which on its time left is said


class Progress(Listener):
    """Shows how a run goes; in commands that train nothing, how far a count is.

    Args:
        quiet: show nothing. verbose: a line for each epoch too. clock: seconds, for tests.
    """

    name = "progress"

    def __init__(
        self,
        quiet: bool = False,
        verbose: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.console = console or stderr_console()
        self.quiet, self.verbose, self._clock = quiet, verbose, clock
        self.bars = Bars(
            self.console,
            self._newest,
            get_time=clock,
            refresh_per_second=2,
            speed_estimate_period=600,  # what is counted may take minutes each
            redirect_stdout=sys.stdout.isatty(),  # else what goes to a file would land on the screen
        )
        self._counts: dict[str, Task] = {}
        self._estimate = Estimate((), clock())
        self._step: StepStart | None = None  # in training
        self._look: Look | None = None
        self._doing = "preparing"  # between steps
        self._scores: list[str] = []  # of the last step
        self._said, self._spoken = clock(), 0  # when, and at which iteration, the last plain line was said

    @contextlib.contextmanager
    def scan(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A callable (done, total) for commands without a run."""
        try:
            yield partial(self.counted, what)
        finally:
            self._clear()

    def line(self, text: str) -> None:
        """One line, unless quiet."""
        if not self.quiet:
            self._clear()
            say(self.console, text)

    def counted(self, what: str, done: int, total: int) -> None:
        """Show a count: beside the bars of a run, else alone on the terminal's last line."""
        if self.quiet:
            return
        every, now = REFRESH if self.console.is_interactive else SOONEST, self._clock()
        task = self._counts.get(what)
        if task is None or done < task.completed:  # lower: the next of several data sets
            self._forget(what)
            task = self._counts[what] = self._add(what, total, True)
            task.fields["shown"] = now - every * self.console.is_interactive
        self.bars.update(task.id, total=total, completed=done)
        certain = max(task.percentage, task.elapsed or 0) >= CERTAIN
        task.fields["words"] = [f"{done} of {total}", *(_left(task.time_remaining) if certain else [])]
        if done >= total:
            self._forget(what)
        elif not self.bars.live.is_started and now - task.fields["shown"] >= every:
            task.fields["shown"] = now
            if self.console.is_interactive:
                self._draw(task)
            else:
                self.line(f"{what}: {', '.join(task.fields['words'])}")

    def run_started(self, start: Start) -> None:
        """Draw from now on."""
        self._estimate = Estimate(start.iterations, self._clock())
        if start.record.steps:
            self._estimate.step_finished(start.record.steps[-1].step, self._clock())
        for what in tuple(self._counts):
            self._forget(what)
        self._bar_of_run, self._bar_of_step = self._add("run", 1.0), self._add("step", 1.0)
        if not self.quiet and self.console.is_interactive:
            self.bars.start()

    def step_started(self, start: StepStart) -> None:
        """A step begins to train, or goes on."""
        self._step, self._look, self._said, self._spoken = start, None, self._clock(), start.done
        self._estimate.step_started(start.step, start.done)
        if not self.bars.live.is_started:
            length = f"{_plural(start.iterations, 'iteration')} in {_plural(start.epochs, 'epoch')}"
            self.line(f"{self._name(start.step)} begins: {length}" + (f", {start.done} are done" * (start.done > 0)))

    def looked(self, look: Look) -> None:
        """New numbers."""
        now, step = self._clock(), self._step
        assert step is not None
        self._look = look
        self._estimate.looked(look.iteration, now)
        if self.bars.live.is_started or look.iteration >= step.iterations:
            return
        tenth = 10 * look.iteration // step.iterations > 10 * self._spoken // step.iterations
        if now - self._said >= LATEST or (tenth and now - self._said >= SOONEST):
            self._said, self._spoken = now, look.iteration
            place = f"{100 * look.iteration / step.iterations:.0f}%, epoch {look.epoch + 1} of {step.epochs}"
            left = [f"{text} of the run" for text in _left(self._estimate.left(now)[1])]
            self.line(", ".join([f"{self._name(look.step)}: {place}", *_numbers(look), *left]))

    def epoch_finished(self, look: Look) -> None:
        """A line, if verbose."""
        if self.verbose:
            epochs = self._step.epochs if self._step else 0
            self.line(f"{self._name(look.step)}, epoch {look.epoch + 1} of {epochs}: {', '.join(_numbers(look))}")

    def evaluating(self, step: int) -> None:
        """Training of a step is done."""
        self._step, self._doing = None, f"evaluating step {step}"

    def step_finished(self, step: StepRecord) -> None:
        """A step is evaluated."""
        self._estimate.step_finished(step.step, self._clock())
        self._step, self._look, self._doing = None, None, "preparing"
        self._scores = _ranked(step)[-1:]
        took = f"{step.seconds:.1f} s" if step.seconds < 60 else humanise(step.seconds)
        how = "loaded" if step.shared else f"{_plural(step.iterations, 'iteration')} in {took}"
        self.line(f"{self._name(step.step)}: {how}{_scores(step)}")

    def run_finished(self, status: str) -> None:
        """Stop drawing."""
        if self.bars.live.is_started:
            self.bars.stop()

    # ---- bars

    def _newest(self) -> list[str]:
        """Bring the bars of run and step up to date; the newest numbers."""
        step, look, (step_left, run_left) = self._step, self._look, self._estimate.left(self._clock())
        words = [self._name(step.step) if step else self._doing, *_left(run_left)]
        self.bars.update(self._bar_of_run.id, completed=self._estimate.share(), words=words)
        self.bars.update(self._bar_of_step.id, visible=step is not None)
        if step is not None:
            done = look.iteration if look else step.done
            epoch = max(0, done - 1) // max(1, step.batches) + 1
            batch = f"batch {done - (epoch - 1) * step.batches} of {step.batches}"
            words = [f"epoch {epoch} of {step.epochs}", batch, *_left(step_left)]
            self.bars.update(self._bar_of_step.id, total=step.iterations, completed=done, words=words)
        return [*self._scores, *(_numbers(look) if look else [])]

    def _add(self, label: str, total: float, beside: bool = False) -> Task:
        self.bars.add_task(label, total=total, words=(), beside=beside)
        return self.bars.tasks[-1]

    def _forget(self, what: str) -> None:
        if what in self._counts:
            self.bars.remove_task(self._counts.pop(what).id)
            self._clear()

    def _draw(self, task: Task) -> None:
        """Draw one count by hand, with the cursor in front of it: an error that ends the command writes over it.

        Rich's display hides the cursor, and would stay where nobody stops it.
        """
        options = self.console.options.update(width=self.console.width - 1)  # a full line would wrap
        (line,) = self.console.render_lines(self.bars.make_tasks_table([task]), options, pad=False)
        self.console.print(Segments(line), end="")
        self._write("\033[K\r")

    def _clear(self) -> None:
        if self.console.is_interactive and not self.quiet and not self.bars.live.is_started:
            self._write("\r\033[K")

    def _write(self, codes: str) -> None:
        self.console.file.write(codes)
        self.console.file.flush()

    def _name(self, step: int) -> str:
        return f"step {step} ({step + 1} of {len(self._estimate.iterations)})"


def _ranked(step: StepRecord) -> list[str]:
    """The score that each task is ranked by, which records keep first."""
    result = []
    for evaluation in step.evaluations:
        name, value = next(iter(evaluation.metrics.items()))
        value = value["all"] if isinstance(value, dict) else value
        text = "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
        result.append(f"{name} {text}" if name != "miou" or value is None else f"mIoU {100 * value:.1f}%")
    return result


def _scores(step: StepRecord) -> str:
    """The scores of a finished step, to follow other words."""
    if step.model is not None:  # a sequence of tasks
        named = zip((evaluation.task for evaluation in step.evaluations), _ranked(step), strict=True)
        return "; " + ", ".join(f"{task} {score}" for task, score in named)
    lost = step.evaluations[0].metrics["forgetting"] if step.evaluations else None
    text = "".join(f", {score}" for score in _ranked(step))
    return text + ("" if lost is None else f", forgetting {round(100 * lost, 1) + 0.0:.1f}%")  # + 0.0: no -0.0


def _numbers(look: Look) -> list[str]:
    """Losses by name, then images per second."""
    losses = [f"{name} {value:.3f}" for name, value in look.losses.items()]
    if look.speed is None:
        return losses
    return [*losses, f"{look.speed:.3g} images/s" if look.speed < 100 else f"{look.speed:.0f} images/s"]


def _left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"{humanise(seconds)} left"]


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
