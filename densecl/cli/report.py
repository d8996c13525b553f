"""`densecl report`: one page of all runs."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli.options import Runs


def report(
    folder: Runs = Path("results"),
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one HTML page that opens offline: rankings, figures, pictures, settings.

    Means over seeds have 95 % intervals, rows are tested against the best. Records and pictures that cannot be read are
    named and left out.
    """
    from densecl.report.make import report as write

    for note in write(folder, output):
        typer.echo(f"densecl: left out: {note}", err=True)
    typer.echo(f"wrote {output} ({output.stat().st_size / 2**20:.2f} MiB)", err=True)
