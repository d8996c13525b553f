"""`densecl table`: compare runs."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Catalogue, Runs

SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def table(
    folder: Runs = Path("results"),
    per_step: Annotated[bool, typer.Option("--per-step", help="mIoU of all classes seen, after each step.")] = False,
    group: Annotated[
        str | None,
        typer.Option(
            help="How classes are averaged: a name of 'densecl list groupings', or file.py:Class of your own.",
            autocompletion=completion.groupings,
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Score classes not learnt yet as under mib2020, plop2021 or strict.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Numbers of papers beside ours: published, or a TOML file or folder.")
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="Show only this one; repeatable.", autocompletion=completion.benchmarks),
    ] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(help="Show runs that meet a condition: 'setting=disjoint', 'training.lr<0.01'; repeatable."),
    ] = None,
    sort: Annotated[str | None, typer.Option(help="COLUMN, COLUMN:asc or COLUMN:desc; the best first.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="Columns to show, with commas between; base and added are names too.")
    ] = None,
    spread: Annotated[
        str, typer.Option(help="After ±: std, the deviation over seeds, or interval, half the mean's 95 % interval.")
    ] = "std",
    over: Annotated[
        list[str] | None,
        typer.Option(help="Average over this setting too, such as 'stream.order'; repeatable."),
    ] = None,
    mix: Annotated[
        bool, typer.Option("--mix", help="Average runs of differing versions, data or devices, with a footnote.")
    ] = False,
    layout: Annotated[
        str | None, typer.Option(help="paper: task sequences as in Matsumoto and Yanai's tables, rounded rows added.")
    ] = None,
    catalogue: Catalogue = None,
    format: Annotated[
        str | None,
        typer.Option(help="terminal, markdown, csv or latex (default: by --output's suffix, else terminal)."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of the screen.")] = None,
) -> None:
    """Compare runs: one row per configuration, mean and standard deviation over seeds.

    IoU in percent by range of classes (in CSV fractions of 1, time in seconds).
    The best of each column is bold, ≈ marks what a paired test cannot tell from
    it. Unfinished runs, methods that are told the task at test time, and joint
    are shown but not ranked.
    """
    from densecl.files import write_text
    from densecl.tables.compare import table as compare
    from densecl.tables.forms.text import render
    from densecl.terminal import columns_and_colour

    tables = compare(
        folder,
        benchmark=benchmark or (),
        filter=filter or (),
        per_step=per_step,
        group=group,
        labels=labels,
        layout=layout,
        against=() if against is None else _published(against, catalogue),
        over=over or (),
        mix=mix,
        sort=sort,
        columns=columns or (),
        complain=lambda message: typer.echo(f"densecl: {message}", err=True),
    )
    form = format or (SUFFIXES.get(output.suffix.lower(), "terminal") if output else "terminal")
    if output is not None:
        write_text(output, render(tables, form, spread=spread))
        typer.echo(f"wrote {output}", err=True)
        return
    width, colour = columns_and_colour()
    typer.echo(render(tables, form, width=width, colour=colour, spread=spread), nl=False)


def _published(name: str, catalogue: Path | None) -> list[Path]:
    """The files of `--against`."""
    from densecl.errors import SettingError
    from densecl.settings.catalogue import published_files

    place = Path(name)
    if name == "published":
        files = published_files(catalogue)
    else:
        files = sorted(place.glob("*.toml")) if place.is_dir() else [place] if place.is_file() else []
    if not files:
        raise SettingError(f"--against {name}: no published numbers there", "write published, or a TOML file or folder")
    return files
