"""`densecl table`: compare what was run."""

from pathlib import Path
from typing import Annotated

import typer

SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def table(
    folder: Annotated[Path, typer.Argument(help="Folder with runs, at any depth.")] = Path("results"),
    per_step: Annotated[bool, typer.Option("--per-step", help="mIoU of all classes seen, after each step.")] = False,
    format: Annotated[
        str | None,
        typer.Option(help="terminal, markdown, csv or latex (default: by --output's suffix, else terminal)."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of the screen.")] = None,
) -> None:
    """Compare what was run: a row a set-up, mean and standard deviation over seeds.

    IoU in percent by range of classes (in CSV fractions of 1, time in seconds). The best of each column is bold;
    unfinished runs, those that are told the task at test time and joint are shown but not ranked.
    """
    import os
    import shutil
    import sys

    from densecl.errors import RecordError
    from densecl.files import write_text
    from densecl.reporting.record import find_records
    from densecl.reporting.render import render
    from densecl.reporting.table import rows

    if not folder.exists():
        raise RecordError(
            f"the folder {folder} does not exist", "name a folder with runs, or start one with densecl run"
        )
    found, faults = find_records(folder)
    for fault in faults:
        typer.echo(f"densecl: left out: {fault}", err=True)
    if not found:
        what = "none of its records can be read" if faults else "it holds no result.json"
        raise RecordError(
            f"nothing to show in {folder}: {what}", "name a folder with runs, or start one with densecl run"
        )
    tables = rows([record for _, record in found], per_step)
    form = format or (SUFFIXES.get(output.suffix.lower(), "terminal") if output else "terminal")
    if output is not None:
        write_text(output, render(tables, form))
        typer.echo(f"wrote {output}", err=True)
        return
    screen = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if screen else None
    colour = screen and os.environ.get("TERM") != "dumb"
    typer.echo(render(tables, form, width=width, colour=colour), nl=False)
