"""`densecl inspect`: look into what a run has learnt."""

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    masks: Annotated[
        bool, typer.Option("--masks", help="Share of weights that masks set to zero, and how alike masks are.")
    ] = False,
    task: Annotated[str | None, typer.Option(help="The masks of this task alone.")] = None,
) -> None:
    """Look into what a run of a task sequence has learnt; nothing is trained or changed."""
    from densecl.errors import SettingError
    from densecl.runner.inspect_masks import describe_masks

    if not masks and task is None:
        raise SettingError("inspect what?", "give --masks; pictures of every task are in RUN/pictures")
    typer.echo(describe_masks(run, task))
