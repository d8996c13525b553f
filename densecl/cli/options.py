"""Options that several commands share. Folders and files are checked here, before anything slow is imported."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion


def _run_folder(folder: Path | None) -> Path | None:
    """Refuse a folder that is not a run."""
    from densecl.finished.trusted import record_path

    if folder is not None:
        record_path(folder)
    return folder


def _folder_of_runs(folder: Path) -> Path:
    """Refuse a folder that does not exist."""
    from densecl.errors import RecordError

    if not folder.exists():
        hint = "name a folder with runs, or start one with densecl run"
        raise RecordError(f"the folder {folder} does not exist", hint)
    return folder


def _data_folder(folder: Path | None) -> Path | None:
    """Refuse a folder of data that does not exist."""
    from densecl.errors import DataError
    from densecl.files import expanded

    alone = "RANK" not in os.environ  # of several processes one complains, once they have met
    if folder is not None and alone and not expanded(folder).is_dir():
        raise DataError(f"--data {folder}: there is no such folder", "correct it, or leave out --data")
    return folder


def existing_file(option: str, advice: str) -> Callable[[Path | None], Path | None]:
    """Make a callback that refuses a file which does not exist."""

    def check(file: Path | None) -> Path | None:
        from densecl.errors import DataError
        from densecl.files import expanded

        if file is not None and "RANK" not in os.environ and not expanded(file).exists():
            raise DataError(f"{option} {file}: there is no such file", advice)
        return file

    return check


def _weights(value: str | None) -> str | None:
    """Refuse a path of weights at which there is no file; words such as `timm` are for the backbone to judge."""
    if value and ("/" in value or value.endswith((".safetensors", ".pth", ".pt"))):
        existing_file("--weights", "give a file, 'timm' or 'none'")(Path(value))
    return value


def existing_images(images: Sequence[Path]) -> Sequence[Path]:
    """Refuse an image that does not exist."""
    from densecl.errors import DataError

    for image in images:
        if not image.exists():
            raise DataError(f"image {image} is missing")
    return images


FILES, MACHINE, SCREEN, OWN = "Files", "Machine", "Screen", "Code of your own"  # panels of --help
Run = Annotated[Path, typer.Argument(help="The folder of a run.", autocompletion=completion.runs, callback=_run_folder)]
JUDGE = "A run with another seed: does its network see the same in the images?"
OtherRun = Annotated[
    Path | None, typer.Option("--judge", help=JUDGE, autocompletion=completion.runs, callback=_run_folder)
]
BOUND = "A joint run of the same network: what classes of later steps are compared with."
JointRun = Annotated[
    Path | None, typer.Option("--joint", help=BOUND, autocompletion=completion.runs, callback=_run_folder)
]
Runs = Annotated[Path, typer.Argument(help="A folder with runs, at any depth.", callback=_folder_of_runs)]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", help="SECTION.KEY=VALUE, such as training.epochs=2; repeatable.", metavar="KEY=VALUE"),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder of data sets (default: DENSECL_DATA).", callback=_data_folder, rich_help_panel=FILES
    ),
]
DataSet = Annotated[Path | None, typer.Option("--data", help="Folder of a data set.", callback=_data_folder)]
Weights = Annotated[
    str | None,
    typer.Option(help="Of the encoder: timm (download), a file, none.", callback=_weights, rich_help_panel=FILES),
]
Output = Annotated[Path, typer.Option("--output", help="Folder for results.", rich_help_panel=FILES)]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one).", rich_help_panel=MACHINE),
]
Catalogue = Annotated[
    Path | None, typer.Option("--catalogue", help="Your own benchmarks/ and strategies/.", rich_help_panel=FILES)
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes that load data.", rich_help_panel=MACHINE)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.", rich_help_panel=SCREEN)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Step = Annotated[int | None, typer.Option("--step", min=0, help="The step whose weights are used (default: the last).")]
CODE = "Of a run with a class of your own: name it again, such as mine.py:Mine; code that a record names is not run."
Code = Annotated[str | None, typer.Option("--strategy", "-s", help=CODE, rich_help_panel=OWN)]
OwnBackbone = Annotated[str | None, typer.Option("--backbone", help="The same, a backbone.", rich_help_panel=OWN)]
OwnData = Annotated[str | None, typer.Option("--data-set", help="The same, a data set.", rich_help_panel=OWN)]
# how the runs of a plan are carried out
Engine = Annotated[
    str | None, typer.Option("--engine", help="local (processes on this machine) or slurm (default: the plan's).")
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Runs at a time (default: one per GPU, or cores / threads).")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of each run (default: 1).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the runs and their cost; start nothing.")]
# which runs tables and reports show, and how
Benchmarks = Annotated[
    list[str] | None,
    typer.Option("--benchmark", "-b", help="Show only this one; repeatable.", autocompletion=completion.benchmarks),
]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter", help="Show runs that meet a condition: 'setting=disjoint', 'training.lr<0.01'; repeatable."
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="How classes are averaged: a name of 'densecl list groupings', or file.py:Class of your own.",
        autocompletion=completion.groupings,
    ),
]
Sort = Annotated[str | None, typer.Option("--sort", help="COLUMN, COLUMN:asc or COLUMN:desc; the best first.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", help="Columns to show, with commas between; base and added are names too."),
]
