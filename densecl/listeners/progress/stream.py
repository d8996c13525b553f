"""Where progress is shown, and how a line is said there."""

import os
import sys
import time

from rich.console import Console


def make_console() -> Console:
    """Standard error. Interactive, so that bars may be drawn, on a terminal that can move its cursor only.

    The console's width is the terminal's; colours are left out under NO_COLOR.
    """
    screen = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return Console(stderr=True, highlight=False, force_interactive=screen, force_terminal=screen or None)


def say(console: Console, text: str) -> None:
    """One line that is never broken or cut: paths and commands in it can be copied.

    With the time of day where it goes to a file, or to a terminal that shows no bars.
    """
    stamp = "" if console.is_interactive else f"{time.strftime('%H:%M:%S')} "
    console.print(stamp + text, markup=False, soft_wrap=True)


def ascii_only(console: Console) -> bool:
    """Whether the terminal cannot show the characters of bars."""
    return not (console.encoding or "").lower().startswith("utf")
