"""Progress in a notebook: one line of HTML that is drawn anew, and the lines of a run below each other."""

import time
from collections.abc import Callable
from html import escape
from typing import Any

from densecl.listeners.events import Look, Start, StepStart
from densecl.listeners.progress import Progress
from densecl.records.record import StepRecord

EVERY = 0.5  # seconds between two drawings


class NotebookProgress(Progress):
    """Shows how a run goes by IPython's display; see `Progress`."""

    def __init__(self, quiet: bool = False, verbose: bool = False, clock: Callable[[], float] = time.monotonic):
        super().__init__(quiet, verbose, clock=clock)
        self._handle: Any = None
        self._drawn = 0.0

    def line(self, text: str) -> None:
        """One line of the cell's output, unless quiet."""
        if not self.quiet:
            print(text, flush=True)

    def run_started(self, start: Start) -> None:
        """Draw from now on."""
        super().run_started(start)
        self._show(force=True)

    def step_started(self, start: StepStart) -> None:
        """A step begins to train, or goes on."""
        super().step_started(start)
        self._show(force=True)

    def looked(self, look: Look) -> None:
        """New numbers; lines on the way, as a log has them, are left out."""
        self._look = look
        self._estimate.looked(look.iteration, self._clock())
        self._show()

    def step_finished(self, step: StepRecord) -> None:
        """A step is evaluated."""
        super().step_finished(step)
        self._show(force=True)

    def run_finished(self, status: str) -> None:
        """Draw the end."""
        super().run_finished(status)
        self._show(force=True)

    def _show(self, force: bool = False) -> None:
        now = self._clock()
        if self.quiet or not (force or now - self._drawn >= EVERY):
            return
        self._drawn = now
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        newest = self._newest()
        bars = [
            f'<div><progress max="1" value="{task.percentage / 100:.3f}"></progress> '
            f"{escape(task.description)} {task.percentage:.0f}% {escape('  '.join(task.fields['words']))}</div>"
            for task in self.bars.tasks
            if task.visible and not task.fields["beside"]
        ]
        html = HTML("".join([*bars, f"<div>{escape('  '.join(newest))}</div>" if newest else ""]))
        if self._handle is None:
            self._handle = display(html, display_id=True)
        else:
            self._handle.update(html)
