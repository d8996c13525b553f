"""`densecl check`: try a method of your own."""

from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue


def check(
    strategy: Annotated[
        str,
        typer.Argument(
            help="Such as mine.py:Mine, or the name of any strategy or plugin.", autocompletion=completion.strategies
        ),
    ],
    catalogue: Catalogue = None,
) -> None:
    """Train a method for seconds on a tiny stream and name its faults."""
    from densecl.settings.catalogue import check_names

    check_names(strategy=strategy, extra=catalogue)
    from densecl.check.check import check_method

    findings = check_method(strategy, catalogue)
    for finding in findings:
        typer.echo(f"✗ {finding}")
    if findings:
        typer.echo(f"{len(findings)} fault{'s' * (len(findings) > 1)} in {strategy}", err=True)
        raise typer.Exit(2)
    typer.echo(f"✓ {strategy} works: hooks, outputs, losses, growing heads, state")
