"""`densecl table`: compare what was run."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli.options import Catalogue

SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def table(
    folder: Annotated[Path, typer.Argument(help="Folder with runs, at any depth.")] = Path("results"),
    per_step: Annotated[bool, typer.Option("--per-step", help="mIoU of all classes seen, after each step.")] = False,
    group: Annotated[
        str | None, typer.Option(help="How classes are averaged: fg-only, with-bg, mixed, harmonic or step-average.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Score classes not learnt yet as under mib2020, plop2021 or strict.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Numbers of papers beside ours: published, or a TOML file or folder of one's own."),
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option("--benchmark", "-b", help="Show this benchmark alone; may be repeated.")
    ] = None,
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
    """Compare what was run: a row a set-up, mean and standard deviation over seeds.

    IoU in percent by range of classes (in CSV fractions of 1, time in seconds). The best of each column is bold;
    unfinished runs, those that are told the task at test time and joint are shown but not ranked.
    """
    import os
    import shutil
    import sys

    from densecl.errors import RecordError, SettingError, UnknownNameError
    from densecl.files import write_text
    from densecl.reporting.record import find_records
    from densecl.reporting.render import render
    from densecl.reporting.table import rows

    if not folder.exists():
        raise RecordError(
            f"the folder {folder} does not exist", "name a folder with runs, or start one with densecl run"
        )
    found, faults = find_records(folder)
    for fault in faults:
        typer.echo(f"densecl: left out: {fault}", err=True)
    if not found:
        what = "none of its records can be read" if faults else "it holds no result.json"
        raise RecordError(
            f"nothing to show in {folder}: {what}", "name a folder with runs, or start one with densecl run"
        )
    if layout not in (None, "paper"):
        raise SettingError(f"unknown layout '{layout}'", "known: paper")
    records = [record for _, record in found]
    if benchmark:
        for name in benchmark:
            if name not in (known := sorted({record.benchmark for record in records})):
                raise UnknownNameError("benchmark", name, known, f"nothing of it was run in {folder}")
        records = [record for record in records if record.benchmark in benchmark]
    if layout == "paper":
        records = [record for record in records if record.tasks]
        if not records or per_step:
            raise SettingError(
                "--layout paper is for the last step of task sequences",
                "leave out --per-step" if per_step else f"{folder} holds no run of one",
            )
    tables = rows(records, per_step, group=group, labels=labels, paper=layout == "paper")
    if against is not None:
        from densecl.reporting.against import against as beside
        from densecl.reporting.published import read_all

        if per_step:
            raise SettingError("--against compares after the last step", "leave out --per-step")
        tables = beside(tables, read_all(_published(against, catalogue)), group)
    form = format or (SUFFIXES.get(output.suffix.lower(), "terminal") if output else "terminal")
    if output is not None:
        write_text(output, render(tables, form))
        typer.echo(f"wrote {output}", err=True)
        return
    screen = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if screen else None
    colour = screen and os.environ.get("TERM") != "dumb"
    typer.echo(render(tables, form, width=width, colour=colour), nl=False)


def _published(name: str, catalogue: Path | None) -> list[Path]:
    """The files that `--against` means."""
    from densecl.catalogue import published_files
    from densecl.errors import SettingError

    place = Path(name)
    if name == "published":
        files = published_files(catalogue)
    else:
        files = sorted(place.glob("*.toml")) if place.is_dir() else [place] if place.is_file() else []
    if not files:
        raise SettingError(f"--against {name}: no published numbers there", "write published, or a TOML file or folder")
    return files
