"""The console that tables are laid out on: text for a string, a file or a terminal, the same for all of them."""

import io

from rich.console import Console


def text_console(width: int, colour: bool) -> Console:
    """A console that prints into memory; read it with `capture`.

    Args:
        width: of lines.
        colour: whether the terminal understands escape codes.
    """
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        emoji=False,
        highlight=False,
    )
