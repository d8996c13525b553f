"""`densecl list`: names of benchmarks, strategies and backbones."""

from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="benchmarks, strategies, backbones or groupings (default: all).", autocompletion=completion.kinds
        ),
    ] = None,
    catalogue: Catalogue = None,
) -> None:
    """List benchmarks, strategies (and plugins), backbones and groupings of tables."""
    from densecl.settings.catalogue import Entry, entries
    from densecl.tables.groupings import groupings

    for number, name in enumerate([kind] if kind else (*completion.KINDS, "groupings")):
        if name == "groupings":
            listed = [Entry(grouping.name, "grouping", grouping.summary) for grouping in groupings()]
        else:
            listed = entries(name, catalogue)
        width = max((len(entry.name) for entry in listed), default=0)
        typer.echo(("\n" if number else "") + name)
        for entry in listed:
            mark = "+" if entry.kind == "plugin" else " "
            typer.echo(f" {mark}{entry.name:<{width}}  {entry.summary}")
    if kind in (None, "strategies"):
        typer.echo("\n+ marks plugins: add them to a strategy, as in mib+replay")
