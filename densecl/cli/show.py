"""`densecl show`: all there is to know about a name."""

from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue, Data


def show(
    name: Annotated[
        str, typer.Argument(help="A benchmark, strategy, plugin or backbone.", autocompletion=completion.names)
    ],
    data: Data = None,
    catalogue: Catalogue = None,
) -> None:
    """Show a benchmark's steps and recipe, a strategy's hyper-parameters and paper, or a backbone's settings."""
    from densecl.about.describe import show_name

    typer.echo(show_name(name, data, catalogue))


def cite(
    name: Annotated[
        str,
        typer.Argument(
            help="A benchmark, strategy or plugin; several joined by + or commas.", autocompletion=completion.names
        ),
    ],
    catalogue: Catalogue = None,
) -> None:
    """Print the BibTeX entries of what a run used."""
    from densecl.about.describe import bibtex

    typer.echo(bibtex(name, catalogue))
