"""`densecl run`: train every step of a benchmark, evaluate after each, and record it."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import Assign, Catalogue, Data, Device, Output, Quiet, Workers


def run(
    benchmark: Annotated[
        str, typer.Option("--benchmark", "-b", help="Such as voc15-5s(lr=0.02).", autocompletion=completion.benchmarks)
    ],
    strategy: Annotated[
        str,
        typer.Option("--strategy", "-s", help="mib+replay, mine.py:Mine, ...", autocompletion=completion.strategies),
    ],
    backbone: Annotated[
        str | None, typer.Option(help="Such as bisenet(encoder=resnet18).", autocompletion=completion.backbones)
    ] = None,
    assignments: Assign = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data: Data = None,
    output: Output = Path("results"),
    weights: Annotated[str | None, typer.Option(help="Weights of the encoder: timm (download), file, none.")] = None,
    first: Annotated[
        Path | None, typer.Option(help="A trained network as the first step: an exported one, or a file of weights.")
    ] = None,
    first_map: Annotated[
        Path | None, typer.Option(help="TOML with the names and classes of a --first of another code base.")
    ] = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Hold out this share of the training images; score on it.")
    ] = None,
    workers: Workers = None,
    catalogue: Catalogue = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan and cost; train nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, even if the run is finished.")] = False,
    no_share: Annotated[bool, typer.Option("--no-share", help="Train step 0 even if an equal one exists.")] = False,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the checkpoints of all epochs of all steps.")
    ] = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line for each epoch, with its losses.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files to the run's folder.")] = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Send losses and scores to Weights & Biases.")] = False,
) -> None:
    """Train every step, evaluate after each, and record it; a finished run is not repeated."""
    import os

    from densecl.errors import SettingError
    from densecl.settings.catalogue import check_names

    if quiet and verbose:
        raise SettingError("--quiet and --verbose exclude each other", "leave out one of them")
    if "RANK" not in os.environ:  # of several processes one complains, once they have met
        check_names(benchmark, strategy, backbone, catalogue)
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

        typer.echo(describe(plan, events.scan("scanning masks")))
        return
    from densecl.runner.run import execute
    from densecl.tables.forms.text import render
    from densecl.tables.table import rows

    record = execute(plan, fresh=fresh, share=not no_share, keep_checkpoints=keep_checkpoints, events=events)
    distributed.leave()
    if main:
        typer.echo(render(rows([record], False), "terminal"), nl=False)
