"""`densecl run`: train every step of a benchmark, evaluate after each, and record it."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import (
    FILES,
    MACHINE,
    SCREEN,
    Assign,
    Catalogue,
    Data,
    Device,
    Output,
    Quiet,
    Weights,
    Workers,
    existing_file,
)
from densecl.terminal import loading, wrapped


def run(
    benchmark: Annotated[
        str, typer.Option("--benchmark", "-b", help="Such as voc15-5s(lr=0.02).", autocompletion=completion.benchmarks)
    ],
    strategy: Annotated[
        str,
        typer.Option("--strategy", "-s", help="mib+replay, mine.py:Mine, ...", autocompletion=completion.strategies),
    ],
    backbone: Annotated[
        str | None, typer.Option(help="Such as unet(depth=4).", autocompletion=completion.backbones)
    ] = None,
    assignments: Assign = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data: Data = None,
    output: Output = Path("results"),
    weights: Weights = None,
    first: Annotated[
        Path | None,
        typer.Option(
            help="A trained network as step 0: an export, or weights.",
            callback=existing_file("--first", "name a file of weights"),
            rich_help_panel=FILES,
        ),
    ] = None,
    first_map: Annotated[
        Path | None,
        typer.Option(
            help="TOML: names and classes of a foreign --first.",
            callback=existing_file("--first-map", "name a TOML file"),
            rich_help_panel=FILES,
        ),
    ] = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.", rich_help_panel=MACHINE)] = None,
    validation: Annotated[
        float | None, typer.Option(help="Score on this share of the training images, held out.")
    ] = None,
    workers: Workers = None,
    catalogue: Catalogue = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show plan and cost; train nothing.", rich_help_panel=SCREEN)
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start again, even if the run is finished.", rich_help_panel=FILES)
    ] = False,
    no_share: Annotated[
        bool, typer.Option("--no-share", help="Train step 0 even if an equal one exists.", rich_help_panel=FILES)
    ] = False,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the checkpoints of all epochs.", rich_help_panel=FILES)
    ] = False,
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for each epoch, with its losses.", rich_help_panel=SCREEN)
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files to the run's folder.", rich_help_panel=SCREEN)
    ] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Send losses and scores to Weights & Biases.", rich_help_panel=SCREEN)
    ] = False,
) -> None:
    """Train every step, evaluate after each, and record it; a finished run is not repeated.

    densecl run -b shapes15-5 -s mib

    densecl run -b voc15-5s -s mib+deepinversion --set training.batch=12 --seed 1
    """
    import os

    from densecl.errors import SettingError
    from densecl.settings.catalogue import check_names

    if quiet and verbose:
        raise SettingError("--quiet and --verbose exclude each other", "leave out one of them")
    if "RANK" not in os.environ:  # of several processes one complains, once they have met
        check_names(benchmark, strategy, backbone, catalogue)
    with loading():
        from densecl.listeners import listeners
        from densecl.runner.plan import make_plan
        from densecl.training import distributed

    distributed.join()
    main = distributed.is_main()
    events = listeners(quiet=quiet, verbose=verbose, tensorboard=tensorboard, wandb=wandb)
    plan = make_plan(
        benchmark,
        strategy,
        backbone=backbone,
        seed=seed,
        assignments=assignments or (),
        data=data,
        output=output,
        weights=weights,
        device=device,
        precision=precision,
        validation=validation,
        workers=workers,
        catalogue=catalogue,
        first=first,
        first_map=first_map,
    )
    if dry_run:
        if not main:
            return
        from densecl.runner.cost import describe

        typer.echo(wrapped(describe(plan, events.scan)))
        return
    with loading():
        from densecl.runner.run import execute
    from densecl.tables.forms.text import render
    from densecl.tables.table import rows

    record = execute(plan, fresh=fresh, share=not no_share, keep_checkpoints=keep_checkpoints, events=events)
    distributed.leave()
    if main:
        typer.echo(render(rows([record], False), "terminal"), nl=False)
