"""`densecl sweep`: all runs of a plan, on this machine or on a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli.options import Catalogue, Data, Device, DryRun, Engine, Jobs, Output, Quiet, Threads, Workers
from densecl.terminal import loading, wrapped

FAILED = 1  # exit code when a run did not finish


def sweep(
    plan: Annotated[
        Path, typer.Argument(help="TOML file: benchmarks, strategies, seeds, settings.", metavar="PLAN.toml")
    ],
    engine: Engine = None,
    jobs: Jobs = None,
    threads: Threads = None,
    data: Data = None,
    output: Output = Path("results"),
    device: Device = None,
    workers: Workers = None,
    catalogue: Catalogue = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Train every run of a plan: benchmarks x strategies x seeds x settings.

    Finished runs are not repeated, stopped ones are resumed, and a first step that several runs share is trained once.
    A run that fails does not stop the others; the exit code is then 1. Ctrl-C stops; the same command resumes.

    densecl sweep results/plans/example.toml --dry-run

    densecl sweep results/plans/example.toml --jobs 2
    """
    from densecl.sweep.planfile import read_plan

    read_plan(plan)  # refuses what is wrong with the file before anything slow is imported
    with loading():
        from densecl.cli import complain
        from densecl.sweep.sweep import carry_out, prepare
        from densecl.tables.forms.text import render
        from densecl.tables.table import rows
        from densecl.terminal import columns_and_colour

    prepared = prepare(
        plan,
        output=output,
        data=data,
        device=device,
        workers=workers,
        catalogue=catalogue,
        engine=engine,
        jobs=jobs,
        threads=threads,
        quiet=quiet,
    )
    if dry_run:
        typer.echo(wrapped(prepared.describe()))
        return
    result = carry_out(prepared, quiet=quiet)
    if result.records:
        width, colour = columns_and_colour()
        typer.echo(render(rows(result.records), "terminal", width=width, colour=colour), nl=False)
    if result.failed:
        names = "; ".join(f"run {ended.job.number} ({ended.job})" for ended in result.failed)
        complain(
            f"{len(result.failed)} of {len(prepared.jobs)} runs failed: {names}. the same command tries them again"
        )
        raise typer.Exit(FAILED)
