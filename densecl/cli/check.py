"""`densecl check`: try a method, data set, backbone or kind of task of one's own."""

from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue, DataSet
from densecl.terminal import loading, wrapped


def check(
    strategy: Annotated[
        str,
        typer.Argument(
            help="Such as mine.py:Mine (a method, data set, backbone or kind of task), or any name.",
            autocompletion=completion.strategies,
        ),
    ],
    data: DataSet = None,
    catalogue: Catalogue = None,
) -> None:
    """Try a method (on a tiny stream), data set, backbone or kind of task for seconds and name its faults.

    densecl check mine.py:Mine

    densecl check mydata.py:MyData --data photos/
    """
    from densecl.settings.catalogue import file_of
    from densecl.settings.grammar import parse

    for call in parse(strategy):
        file_of(call.name)  # refuses a file that does not exist before anything slow is imported
    with loading():
        from densecl.check import dispatch

    findings, works = dispatch.check(strategy, data, catalogue)
    for finding in findings:
        typer.echo(wrapped(f"✗ {finding}"))
    if findings:
        typer.echo(f"{len(findings)} fault{'s' * (len(findings) > 1)} in {strategy}", err=True)
        raise typer.Exit(2)
    typer.echo(f"✓ {strategy} works: {works}")
