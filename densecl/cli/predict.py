"""`densecl predict`: label, colour or paint photographs with a run's network."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli.options import Catalogue, Code, Device, OwnBackbone, OwnData, Run, Step, existing_images
from densecl.terminal import loading


def predict(
    run: Run,
    images: Annotated[
        list[Path],
        typer.Argument(help="Images, or folders of them, without their subfolders.", callback=existing_images),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("predictions"),
    step: Step = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Of a sequence of tasks, or step0, ... of a method told the step (default: the last learnt)."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Pixels of the shorter side that the network sees, or full (default: as evaluated)."),
    ] = None,
    device: Device = None,
    catalogue: Catalogue = None,
    strategy: Code = None,
    backbone: OwnBackbone = None,
    data_set: OwnData = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Predict with the kept weights of a run; no data set is needed.

    Writes for each image NAME.mask.png (labels in VOC's colours, in the image's size) and NAME.overlay.png (over the
    image, with a legend); for tasks that make pictures NAME.TASK.png. Images of any kind and size; the first frame of
    an animation. All are opened before anything is written.

    densecl predict RUN photos/ -o labelled

    densecl predict RUN street.jpg --step 0 --size 512
    """
    with loading():
        from densecl.finished.predict import describe, predictions

    own = {"strategy": strategy, "backbone": backbone, "data_set": data_set}
    options = {"step": step, "task": task, "size": size, "device": device, "catalogue": catalogue, **own}
    for prediction in predictions(run, images, output, **options):  # type: ignore[arg-type]
        if not quiet:
            typer.echo(describe(prediction))
