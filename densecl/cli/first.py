"""`densecl first`: first steps of runs as files, for other results folders and other people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densecl.cli.options import Run, existing_file

if TYPE_CHECKING:
    from densecl.finished.first import Traveller

HELP = """Export and import first steps.

densecl first export RUN -o first.safetensors

densecl first import first.safetensors
"""
app = typer.Typer(name="first", add_completion=False, help=HELP, no_args_is_help=True)
Folder = Annotated[Path, typer.Option("--output", help="The folder of results that gets it.")]


@app.command("export")
def export(
    run: Run, output: Annotated[Path, typer.Option("--output", "-o", help="The file, such as first.safetensors.")]
) -> None:
    """Write the first step of a run to a file, with its key and settings."""
    from densecl.errors import DataError
    from densecl.finished.first import export_first

    if output.exists():
        raise DataError(f"{output} exists already", "name another file, or remove it")
    _show(export_first(run, output))


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A file of `densecl first export`, or its address.")],
    output: Folder = Path("results"),
    sha256: Annotated[str | None, typer.Option(help="What the file must have, as its author says.")] = None,
) -> None:
    """Put a first step into a results folder: runs with its settings load it."""
    if "://" not in source:
        existing_file("the first step", "name a file that `densecl first export` wrote")(Path(source))
    from densecl.finished.first import import_first

    found = import_first(source, output, sha256)
    _show(found)
    if not found.fits:
        typer.echo(
            f"made with other code, libraries or another machine: runs here train their own; take it all the same by "
            f"--first {found.path}"
        )


def _show(found: "Traveller") -> None:
    typer.echo(f"{found.path}: first step of {found.benchmark}, {len(found.classes) - 1} classes")
    typer.echo(f"sha256 {found.sha256}")
