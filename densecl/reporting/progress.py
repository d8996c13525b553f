"""How training goes, on standard error: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from densecl.reporting.record import StepRecord

REFRESH = 0.5  # seconds between looks at the loss, each of which may wait for the device


class Progress:
    """Implements the loop's `Events`; also a context that shows the bar while training runs."""

    def __init__(self, quiet: bool = False):
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self._bar: Bar | None = None
        self._job: TaskID | None = None
        self._looked = 0.0
        self._steps = 1

    def line(self, text: str) -> None:
        """One line, unless quiet."""
        if not self.quiet:
            self.console.print(text, markup=False)

    def run_started(self, folder: Path, steps: int, content: str) -> None:
        """Say where the results go and what is to be learnt."""
        self._steps = steps
        self.line(f"{folder}: {steps} step{'s' * (steps > 1)}, {content}")

    def __enter__(self) -> "Progress":
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self._bar = Bar(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step_started(self, step: int, epochs: int, iterations: int) -> None:
        """A step begins to train."""
        if self._bar is not None:
            if self._job is not None:
                self._bar.remove_task(self._job)
            self._job = self._bar.add_task(f"step {step + 1} of {self._steps}", total=iterations)

    def iteration(self, epoch: int, iteration: int, loss_terms: Mapping[str, Any], samples: int) -> None:
        """An iteration is done."""
        if self._bar is None or self._job is None:
            return
        now = time.perf_counter()
        if now - self._looked < REFRESH:
            return
        self._looked = now
        losses = "  ".join(f"{name} {float(term):.3f}" for name, term in loss_terms.items())
        self._bar.update(self._job, completed=iteration, description=f"{losses}  epoch {epoch + 1}")

    def evaluating(self, step: int) -> None:
        """Training of a step is done, its evaluation begins."""
        if self._bar is not None and self._job is not None:
            self._bar.update(self._job, description=f"evaluating step {step + 1} of {self._steps}")

    def step_finished(self, step: StepRecord) -> None:
        """A step is evaluated."""
        text = f"step {step.step + 1} of {self._steps}: {step.iterations} iterations in {step.seconds:.1f} s"
        if step.model is not None:  # a sequence of tasks
            scores = (f"{found.task} {_headline(found.metrics)}" for found in step.evaluations)
            self.line(f"{text}; {', '.join(scores)}")
            return
        metrics = step.evaluations[0].metrics
        miou, lost = metrics["miou"]["all"], metrics["forgetting"]
        text += "" if miou is None else f", mIoU {miou:.3f}"
        # + 0.0: no -0.000
        self.line(text + ("" if lost is None else f", forgetting {round(lost, 3) + 0.0:.3f}"))

    def scan(self, what: str) -> "Scan":
        """A callable (done, total) for scans of files."""
        return Scan(self, what)


def _headline(metrics: Mapping[str, Any]) -> str:
    """The first score of a task: records keep the one it is ranked by first."""
    name, value = next(iter(metrics.items()))
    value = value["all"] if isinstance(value, dict) else value
    shown = "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
    return f"{'mIoU' if name == 'miou' else name} {shown}"


class Scan:
    """Shows how far a scan of files is, at most twice a second, on a terminal only."""

    def __init__(self, progress: Progress, what: str):
        self.progress, self.what, self.shown = progress, what, 0.0

    def __call__(self, done: int, total: int) -> None:
        """So many of so many are done."""
        if self.progress.quiet or not self.progress.console.is_terminal:
            return
        now = time.perf_counter()
        if now - self.shown > REFRESH or done == total:
            self.shown = now
            sys.stderr.write(f"\r{self.what} {done}/{total}" + ("\r\033[K" if done == total else ""))
            sys.stderr.flush()
