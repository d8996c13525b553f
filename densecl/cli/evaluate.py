"""`densecl evaluate`: score a run's kept weights again."""

from typing import Annotated

import typer

from densecl.cli.options import Catalogue, Code, Data, Device, OwnBackbone, OwnData, Run, Step, Workers
from densecl.terminal import loading


def evaluate(
    run: Run,
    step: Step = None,
    evaluation: Annotated[
        str | None, typer.Option("--evaluation", help="crop512, full, or size=N (default: the run's own).")
    ] = None,
    data: Data = None,
    device: Device = None,
    workers: Workers = None,
    catalogue: Catalogue = None,
    strategy: Code = None,
    backbone: OwnBackbone = None,
    data_set: OwnData = None,
    task: Annotated[str | None, typer.Option(help="Only this task of a sequence of tasks.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the evaluation as JSON, confusion matrix included.")
    ] = False,
) -> None:
    """Evaluate the kept weights of a finished step; nothing is trained or changed.

    densecl evaluate results/shapes15-5/mib/bisenet-mini/s0-1a2b3c4d

    densecl evaluate RUN --step 0 --evaluation full --json
    """
    with loading():
        from densecl.finished.evaluate import reevaluate, summary

    scored = reevaluate(
        run,
        step=step,
        task=task,
        preset=evaluation,
        data=data,
        device=device,
        workers=workers,
        catalogue=catalogue,
        strategy=strategy,
        backbone=backbone,
        data_set=data_set,
    )
    if not as_json:
        typer.echo(summary(scored))
    elif scored.all_tasks:
        typer.echo(f"[{', '.join(found.model_dump_json() for found in scored.all_tasks)}]")
    else:
        typer.echo(scored.evaluation.model_dump_json())
