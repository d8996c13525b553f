"""`densecl check`: try a method or a data set of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue


def check(
    strategy: Annotated[
        str,
        typer.Argument(
            help="Such as mine.py:Mine, or the name of any strategy, plugin or data set.",
            autocompletion=completion.strategies,
        ),
    ],
    data: Annotated[Path | None, typer.Option("--data", help="Folder of a data set.")] = None,
    catalogue: Catalogue = None,
) -> None:
    """Say in words what is wrong with a method, trained for seconds on a tiny stream, or with a data set, opened."""
    from densecl.check.data_set import check_data_set, names_data_set

    works = "hooks, outputs, losses, growing heads, state"
    if names_data_set(strategy):
        from densecl.data import data_set
        from densecl.settings.grammar import parse_one

        works = "files, images, masks, labels, classes"
        findings = check_data_set(data_set(strategy), data, **parse_one(strategy, "data set").arguments)
    else:
        from densecl.check.check import check_method

        findings = check_method(strategy, catalogue)
    for finding in findings:
        typer.echo(f"✗ {finding}")
    if findings:
        typer.echo(f"{len(findings)} thing{'s' * (len(findings) > 1)} to mend in {strategy}", err=True)
        raise typer.Exit(2)
    typer.echo(f"✓ {strategy} works: {works}")
