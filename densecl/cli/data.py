"""`densecl data`: make, get, verify, find and describe data sets."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion

HELP = """Make, get, verify, find and describe data sets.

densecl data get voc2012

densecl data verify voc2012 --data datasets/
"""
app = typer.Typer(name="data", add_completion=False, help=HELP, no_args_is_help=True)


def _known(name: str) -> str:
    """Refuse a name that does not exist, before anything slow is imported."""
    from densecl.data import canonical

    canonical(name)
    return name


Name = Annotated[
    str,
    typer.Argument(
        help="Such as shapes, scenes, voc2012, cityscapes, coco, nyuv2, taskonomy, folder; file.py:Class for your own.",
        autocompletion=completion.data_sets,
        callback=_known,
    ),
]
Folder = Annotated[Path | None, typer.Option("--data", help="Folder of the data set (default: the usual places).")]


@app.command("make")
def make(name: Name, data: Folder = None) -> None:
    """Draw an embedded data set, or paint the masks of coco."""
    from densecl.data import data_set
    from densecl.listeners.progress import Progress

    with Progress().scan("masks") as scan:
        place = data_set(name).make(data, scan)
    typer.echo(place)


@app.command("get")
def get(name: Name, data: Folder = None) -> None:
    """Download a data set and prepare it."""
    from densecl.data import data_set
    from densecl.listeners.progress import Progress

    with Progress().scan("files") as scan:
        place = data_set(name).get(data, scan)
    typer.echo(place)


@app.command("path")
def path(name: Name, data: Folder = None) -> None:
    """Print the folder of a data set."""
    from densecl.data import data_set

    typer.echo(data_set(name).locate(data))


@app.command("verify")
def verify(name: Name, data: Folder = None) -> None:
    """Check that lists, images and masks are complete and legal; exit code 2 if they are not."""
    from densecl.data import verify as checks
    from densecl.listeners.progress import Progress
    from densecl.streams import golden

    with Progress().scan("masks") as scan:
        findings = checks.verify(name, data, progress=scan, inspect=golden.inspect)
    for finding in findings:
        typer.echo(finding)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(2)


@app.command("describe")
def describe(
    folder: Annotated[Path, typer.Argument(help="The folder of a data set of your own.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the recipe there, such as mine/benchmarks/mine.toml.")
    ] = None,
) -> None:
    """Propose a recipe for a folder of images and masks: classes, ids or colours, lists, splits."""
    from densecl.data.describe import describe as propose
    from densecl.errors import DataError
    from densecl.files import write_text
    from densecl.listeners.progress import Progress
    from densecl.settings.catalogue import benchmark_recipes

    if output is not None and output.exists():
        raise DataError(f"{output} exists already", "name another file, or remove it")
    with Progress().scan("masks") as scan:
        text = propose(folder, benchmark_recipes(), scan)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
        typer.echo(output)
