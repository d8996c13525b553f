"""`densecl show` and `densecl cite`: describe a name, cite its paper."""

from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue, Data


def show(
    name: Annotated[
        str, typer.Argument(help="A benchmark, strategy, plugin or backbone.", autocompletion=completion.names)
    ],
    images: Annotated[
        bool, typer.Option("--images", help="Open the data set of a benchmark: class names, images of each step, cost.")
    ] = False,
    data: Data = None,
    catalogue: Catalogue = None,
) -> None:
    """Show a benchmark's steps and recipe, a strategy's hyper-parameters and paper, or a backbone's arguments.

    densecl show mib

    densecl show voc15-5s --images
    """
    from densecl.about.describe import show_name
    from densecl.terminal import wrapped

    typer.echo(wrapped(show_name(name, data, catalogue, images=images or data is not None)))


def cite(
    name: Annotated[
        str,
        typer.Argument(
            help="Benchmarks, strategies and plugins, joined by + or commas.", autocompletion=completion.names
        ),
    ],
    catalogue: Catalogue = None,
) -> None:
    """Print the BibTeX entries of what a run used.

    densecl cite mib+deepinversion

    densecl cite voc15-5s
    """
    from densecl.about.describe import bibtex

    typer.echo(bibtex(name, catalogue))
