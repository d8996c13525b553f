"""`densecl report`: one page of all runs."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Runs
from densecl.terminal import loading


def report(
    folder: Runs = Path("results"),
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="Show only this one; repeatable.", autocompletion=completion.benchmarks),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Set-ups of each benchmark that have figures and details; all are ranked. Default: some dozens."
        ),
    ] = None,
) -> None:
    """Write one HTML page that opens offline: rankings, figures, pictures, settings.

    Means over seeds have 95 % intervals, rows are tested against the best. Records and pictures that cannot be read are
    named and left out.

    densecl report results/ -o report.html

    densecl report results/ -b voc15-5s --rows 20
    """
    with loading():
        from densecl.report.make import report as write

    for note in write(folder, output, benchmark=benchmark or (), rows=rows):
        typer.echo(f"densecl: left out: {note}", err=True)
    typer.echo(f"wrote {output} ({output.stat().st_size / 2**20:.2f} MiB)", err=True)
