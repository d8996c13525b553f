"""What the terminal that results are printed to can show."""

import os
import shutil
import sys


def columns_and_colour() -> tuple[int | None, bool]:
    """Width of the screen, None where the output goes elsewhere; and whether it understands escape codes."""
    screen = sys.stdout.isatty()
    return shutil.get_terminal_size().columns if screen else None, screen and os.environ.get("TERM") != "dumb"
