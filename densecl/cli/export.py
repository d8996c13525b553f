"""`densecl export`: a run's predictions as files."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli.options import Catalogue, Code, Data, Device, OwnBackbone, OwnData, Run, Workers
from densecl.terminal import loading


def export(
    run: Run,
    predictions: Annotated[Path, typer.Option("--predictions", help="Folder to write, with step0/, step1/, ...")],
    step: Annotated[int | None, typer.Option("--step", min=0, help="This step alone.")] = None,
    ids: Annotated[
        str, typer.Option(help="data: those of the data set's masks; stream: labels in order of arrival.")
    ] = "data",
    data: Data = None,
    device: Device = None,
    workers: Workers = None,
    catalogue: Catalogue = None,
    strategy: Code = None,
    backbone: OwnBackbone = None,
    data_set: OwnData = None,
) -> None:
    """Write the label maps of a run's test images after each step, in the form that `densecl score` reads.

    Their scores are the run's own, to the last pixel.

    densecl export RUN --predictions maps/

    densecl export RUN --predictions maps/ --step 0
    """
    with loading():
        from densecl.finished.export_predictions import export_predictions
        from densecl.listeners.progress import Progress

    with Progress().scan("label maps") as progress:
        exported = export_predictions(
            run,
            predictions,
            step=step,
            ids=ids,
            data=data,
            device=device,
            workers=workers,
            catalogue=catalogue,
            strategy=strategy,
            backbone=backbone,
            data_set=data_set,
            progress=progress,
        )
    typer.echo(f"wrote {exported.maps} label maps to {exported.folder}")
    typer.echo(f"score them: {exported.command}")
