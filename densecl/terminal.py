"""Terminals and other streams: width, colours, consoles, times in words. Rich is imported when text is laid out."""

import contextlib
import io
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def understands_codes(stream: TextIO) -> bool:
    """True for a terminal that has colours and can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Say that a command loads its libraries, on a terminal, while it does; nothing remains."""
    shown = understands_codes(sys.stderr)
    if shown:
        print("loading ...", end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\x1b[K", end="", file=sys.stderr, flush=True)


def columns_and_colour() -> tuple[int | None, bool]:
    """Width of the terminal that results are printed to, None for other streams; True where it has colours."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None, understands_codes(sys.stdout)


def wrapped(text: str) -> str:
    """Lines broken between words where they are too long for the terminal; as they are for other streams.

    What follows stands below the line's last column, behind the first two spaces in a row.
    """
    width, _ = columns_and_colour()
    return text if width is None else "\n".join(_broken(line, max(width, 40)) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    column = re.match(r" *\S.*?  +(?=\S)", line[: width // 2])
    indent = len(column[0]) if column else len(line) - len(line.lstrip()) + 4
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def text_console(width: int, colour: bool) -> "Console":
    """A console that lays text out in memory, equally for a string, a file or a terminal; read it with `capture`."""
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        emoji=False,
        highlight=False,
    )


def stderr_console() -> "Console":
    """Standard error. It is interactive, so that bars may be drawn, only on a terminal that can move its cursor."""
    from rich.console import Console

    class Stderr(Console):
        def on_broken_pipe(self) -> None:  # rich would end the process with all that it computes
            self.quiet = True

    moves = understands_codes(sys.stderr)
    return Stderr(stderr=True, highlight=False, force_interactive=moves, force_terminal=moves or None)


def say(console: "Console", text: str) -> None:
    """Print one line that is never broken or cut: paths and commands in it can be copied.

    It begins with the time of day where it goes to a file, or to a terminal without bars.
    """
    stamp = "" if console.is_interactive else f"{time.strftime('%H:%M:%S')} "
    with contextlib.suppress(OSError):  # a full disk under the log must not end what is being computed
        console.print(stamp + text, markup=False, soft_wrap=True)


def humanise(seconds: float) -> str:
    """`42s`, `3m 05s`, `2h 07m` or `5d 03h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 6000:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24:02d}h"
