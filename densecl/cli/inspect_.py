"""`densecl inspect`: look into a run."""

from typing import Annotated

import typer

from densecl.cli.options import Run


def inspect(
    run: Run,
    masks: Annotated[
        bool, typer.Option("--masks", help="Share of weights that masks set to zero, and agreement of masks.")
    ] = False,
    task: Annotated[str | None, typer.Option(help="Only the masks of this task.")] = None,
) -> None:
    """Look into a run: settings, steps, scores of each class, confused classes, files. Nothing is changed.

    densecl inspect RUN

    densecl inspect RUN --masks
    """
    if masks or task is not None:
        from densecl.finished.inspect_masks import describe_masks

        typer.echo(describe_masks(run, task))
        return
    from densecl.finished.inspect_run import describe_run
    from densecl.terminal import columns_and_colour

    width, colour = columns_and_colour()
    typer.echo(describe_run(run, width=width, colour=colour), nl=False)
