"""`densecl bank`: the synthetic images of a run, in figures."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion


def bank(
    run: Annotated[
        Path, typer.Argument(help="The folder of a run with +deepinversion.", autocompletion=completion.runs)
    ],
    judge: Annotated[
        Path | None,
        typer.Option(
            "--judge",
            help="A run with another seed: does its network see the same in them?",
            autocompletion=completion.runs,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the banks of synthetic images that a run replayed: classes, figures, and where the gallery is."""
    import json

    from densecl.data.places import cache_folder
    from densecl.finished.judge import judged

    found = judged(run, judge)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for each in found:
        folder = cache_folder() / "banks" / each["key"]
        labels = ", ".join(map(str, each["labels"]))
        typer.echo(f"made before step {each['step']}, of the classes {labels}\n  {folder / 'gallery.png'}")
        for group in ("quality", "agreement"):
            for key, value in each.get(group, {}).items():
                typer.echo(f"  {f'{group}: {key}':28} {value:.3f}")
