"""`densecl check`: try a method or a backbone of one's own."""

from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue


def check(
    strategy: Annotated[
        str,
        typer.Argument(
            help="Such as mine.py:Mine (a method or a backbone), or the name of any strategy or plugin.",
            autocompletion=completion.strategies,
        ),
    ],
    catalogue: Catalogue = None,
) -> None:
    """Try a method (on a tiny stream) or a backbone for seconds and say in words what is wrong with it."""
    from densecl.check.backbone import backbone_of, check_backbone_class
    from densecl.check.check import check_method

    backbone = backbone_of(strategy)
    findings = check_method(strategy, catalogue) if backbone is None else check_backbone_class(*backbone)
    for finding in findings:
        typer.echo(f"✗ {finding}")
    if findings:
        typer.echo(f"{len(findings)} thing{'s' * (len(findings) > 1)} to mend in {strategy}", err=True)
        raise typer.Exit(2)
    parts = "hooks, outputs, losses" if backbone is None else "maps of all sizes, gradients"
    typer.echo(f"✓ {strategy} works: {parts}, growing heads, state")
