"""How far work beside training is: scans of masks, downloads, synthesis of images."""

import time
from collections.abc import Callable

from rich.console import Console

from densecl.listeners.progress.bars import Row, rows
from densecl.listeners.progress.stream import ascii_only, say
from densecl.tables.forms.cells import humanise

REFRESH = 0.25  # seconds between two drawings
PATIENCE = 30.0  # seconds between two lines where there is no terminal
KNOWN = 0.05  # share of the work from which on the time left is said, or after
SOON = 5.0  # seconds


class Counter:
    """Counts some work on a terminal's last line, or in plain lines now and then if it takes long.

    A callable (done, total), and a context that clears its line when the work ends early.

    Args:
        console: where. what: is done. quiet: show nothing. clock: seconds, for tests.
    """

    def __init__(self, console: Console, what: str, quiet: bool = False, clock: Callable[[], float] = time.monotonic):
        self.console, self.what, self.quiet, self._clock = console, what, quiet, clock
        self.done = self.total = self._first = 0
        self.begun = self._drawn = self._said = clock()
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """So many of so many are done."""
        self.count(done, total)
        if self.quiet:
            return
        now = self._clock()
        if not self.console.is_interactive:
            if now - self._said >= PATIENCE and done < total:
                self._said = now
                say(self.console, f"{self.what}: {', '.join(self.words())}")
            return
        if done >= total:
            self.clear()
        elif now - self._drawn >= REFRESH or not self._shown:
            self._drawn, self._shown = now, True
            (line,) = rows([self.row()], self.console.width - 1, ascii_only(self.console))
            self.console.print(line, end="")
            self.console.file.write("\033[K\r")  # the cursor stays in front: what is printed next writes over it
            self.console.file.flush()

    def __enter__(self) -> "Counter":
        return self

    def __exit__(self, *_error: object) -> None:
        self.clear()

    def count(self, done: int, total: int) -> None:
        """Take note, show nothing."""
        if done < self.done or not self.total:  # the next of several splits; or some were done before a kill
            self.begun, self._first = self._clock(), done
        self.done, self.total = done, total

    def clear(self) -> None:
        """Clear the line."""
        if self._shown:
            self._shown = False
            self.console.file.write("\r\033[K")
            self.console.file.flush()

    def words(self) -> list[str]:
        """How many are done, and how long the rest will take."""
        text = [f"{self.done} of {self.total}"]
        taken, counted = self._clock() - self.begun, self.done - self._first
        if counted and (counted >= KNOWN * self.total or taken >= SOON):
            text.append(f"{humanise(taken / counted * (self.total - self.done))} left")
        return text

    def row(self) -> Row:
        """As a line with a bar."""
        return Row(self.what, self.done / max(1, self.total), self.words())
