"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion

Run = Annotated[Path, typer.Argument(help="The folder of a run.", autocompletion=completion.runs)]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", help="SECTION.KEY=VALUE, as often as wanted: training.epochs=2.", metavar="KEY=VALUE"),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data set (default: DENSECL_DATA, then the user's).")
]
Output = Annotated[Path, typer.Option("--output", help="Folder for results.")]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ... (default: a GPU when there is one).")
]
Catalogue = Annotated[
    Path | None, typer.Option("--catalogue", help="Folder with benchmarks/ and strategies/ of one's own.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=0, help="Processes that load data.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
