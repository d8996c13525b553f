"""`densecl score`: score predictions of any code."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Assign, Catalogue, Data, Device, Output, Workers, existing_file
from densecl.terminal import loading


def score(
    predictions: Annotated[
        str, typer.Argument(help="A folder of label maps, with step0/, step1/, ... in it; or load.py:Network.")
    ] = "",
    benchmark: Annotated[
        str, typer.Option("--benchmark", "-b", help="What they are of.", autocompletion=completion.benchmarks)
    ] = "",
    step: Annotated[int | None, typer.Option("--step", min=0, help="Score this step alone.")] = None,
    name: Annotated[str | None, typer.Option(help="The method, as tables call it.")] = None,
    about: Annotated[
        Path | None,
        typer.Option(
            help="What its author declares (default: about.toml there).",
            callback=existing_file("--about", "score --template prints one to fill in"),
        ),
    ] = None,
    ids: Annotated[
        str | None, typer.Option(help="data: those of the data set's masks (default); stream: in order of arrival.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="nearest: label maps may have another size than their masks.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the training behind them.")] = None,
    assignments: Assign = None,
    validation: Annotated[
        float | None, typer.Option(help="Score on this share of the training images, as run --validation does.")
    ] = None,
    data: Data = None,
    output: Output = Path("results"),
    device: Device = None,
    workers: Workers = None,
    catalogue: Catalogue = None,
    template: Annotated[bool, typer.Option("--template", help="Print an about.toml to fill in.")] = False,
) -> None:
    """Score predictions of any code by the rules of a benchmark; their record is marked as foreign.

    A label map is a PNG of grey values (8 or 16 bits) or palette indices, named as its test image (ID.png), in the size
    of the mask or of what is evaluated of it. All of them are read, and all that is wrong is named, before anything is
    written.

    densecl score predictions/ -b voc15-5s --name PLOP

    densecl score load.py:Network -b voc15-5 --step 1
    """
    if template:
        from densecl.finished.about import TEMPLATE

        typer.echo(TEMPLATE, nl=False)
        return
    from densecl.errors import SettingError
    from densecl.finished.about import refuse_missing
    from densecl.settings.catalogue import check_names

    if not predictions or not benchmark:
        raise SettingError("score needs predictions and a benchmark", "densecl score PREDICTIONS -b BENCHMARK")
    check_names(benchmark=benchmark, extra=catalogue)
    refuse_missing(predictions)
    with loading():
        from densecl.finished.evaluate import summary
        from densecl.finished.score import score as write
        from densecl.listeners.progress import Progress

    with Progress().scan("label maps") as progress:
        path, scored = write(
            predictions,
            benchmark,
            step=step,
            name=name,
            about=about,
            ids=ids,
            resize=resize,
            seed=seed,
            output=output,
            device=device,
            workers=workers,
            progress=progress,
            assignments=assignments or (),
            validation=validation,
            data=data,
            catalogue=catalogue,
        )
    typer.echo(summary(scored))
    typer.echo(f"wrote {path}", err=True)
