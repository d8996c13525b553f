"""`densecl predict`: what a run makes of photographs."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli.options import Catalogue, Device, Run


def predict(
    run: Run,
    images: Annotated[
        list[Path], typer.Argument(help="Images, or folders of them; those are not searched any deeper.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("predictions"),
    step: Annotated[int | None, typer.Option("--step", help="Which step's weights (default: the last).", min=0)] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Of a sequence of tasks, which one (default: the last learnt); step0, ... where told."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Pixels of the shorter side that the network sees, or full (default: as evaluated)."),
    ] = None,
    device: Device = None,
    catalogue: Catalogue = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Predict with the kept weights of a run; no data set is needed.

    Written for each image: NAME.mask.png, labels in VOC's colours, as large as the image, and NAME.overlay.png, over
    the image with a legend. For tasks that make pictures: NAME.TASK.png. Images of any kind and size; of an animation
    the first frame. All are opened before anything is written.
    """
    from densecl.finished.predict import describe, predictions

    for prediction in predictions(
        run, images, output, step=step, task=task, size=size, device=device, catalogue=catalogue
    ):
        if not quiet:
            typer.echo(describe(prediction))
