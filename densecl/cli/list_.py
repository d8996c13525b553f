"""`densecl list`: names of all kinds."""

from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="benchmarks, strategies, backbones, data or groupings (default: all).", autocompletion=completion.kinds
        ),
    ] = None,
    catalogue: Catalogue = None,
) -> None:
    """List benchmarks, strategies (and plugins), backbones, data sets and groupings of tables.

    densecl list

    densecl list strategies
    """
    from densecl import data
    from densecl.errors import UnknownNameError
    from densecl.settings.catalogue import Entry, entries, faults
    from densecl.tables.groupings import groupings
    from densecl.terminal import wrapped

    if kind not in (None, *completion.KINDS):
        raise UnknownNameError("kind", kind, completion.KINDS)
    for number, name in enumerate([kind] if kind else completion.KINDS):
        if name == "groupings":
            listed = [Entry(grouping.name, "grouping", grouping.summary) for grouping in groupings()]
        elif name == "data":
            listed = [Entry(each.name, "data set", each.summary) for each in data.entries()]
        else:
            broken = faults(name, catalogue) if name != "backbones" else {}
            listed = entries(name, catalogue, broken)
            for fault in broken.values():
                typer.echo(f"densecl: left out: {fault}", err=True)
        width = max((len(entry.name) for entry in listed), default=0)
        typer.echo(("\n" if number else "") + name)
        for before, entry in zip([None, *listed], listed, strict=False):
            mark = "+" if entry.kind == "plugin" else " "
            summary = "" if before and before.summary == entry.summary else f"  {entry.summary}"  # of splits, once
            typer.echo(wrapped(f" {mark}{entry.name:<{width}}{summary}".rstrip()))
    if kind in (None, "strategies"):
        typer.echo("\n+ marks plugins: add them to a strategy, as in mib+replay")
