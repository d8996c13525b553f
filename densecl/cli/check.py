"""`densecl check`: try a method, data set, backbone or kind of task of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue
from densecl.terminal import loading


def check(
    strategy: Annotated[
        str,
        typer.Argument(
            help="Such as mine.py:Mine (a method, data set, backbone or kind of task), or any name.",
            autocompletion=completion.strategies,
        ),
    ],
    data: Annotated[Path | None, typer.Option("--data", help="Folder of a data set.")] = None,
    catalogue: Catalogue = None,
) -> None:
    """Try a method (on a tiny stream), data set, backbone or kind of task for seconds and name its faults.

    densecl check mine.py:Mine

    densecl check mydata.py:MyData --data photos/
    """
    with loading():
        from densecl.check import dispatch

    findings, works = dispatch.check(strategy, data, catalogue)
    for finding in findings:
        typer.echo(f"✗ {finding}")
    if findings:
        typer.echo(f"{len(findings)} fault{'s' * (len(findings) > 1)} in {strategy}", err=True)
        raise typer.Exit(2)
    typer.echo(f"✓ {strategy} works: {works}")
