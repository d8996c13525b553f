"""`densecl reproduce`: a table of a paper, run and set beside the paper's numbers."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli import completion
from densecl.cli.options import (
    Assign,
    Catalogue,
    Data,
    Device,
    DryRun,
    Engine,
    Jobs,
    Output,
    Quiet,
    Threads,
    Workers,
)
from densecl.terminal import loading, wrapped

FAILED = 1  # exit code when a run did not finish


def reproduce(
    table: Annotated[
        str | None,
        typer.Argument(
            help="PAPER:TABLE, such as disalvo2021:table3.", metavar="TABLE", autocompletion=completion.paper_tables
        ),
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the tables that can be repeated.")] = False,
    small: Annotated[
        bool, typer.Option("--small", help="On embedded data with few iterations: proves that all of it works.")
    ] = False,
    dry_run: DryRun = False,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", min=0, help="Seed, in place of the plan's; repeatable.")
    ] = None,
    assignments: Assign = None,
    engine: Engine = None,
    jobs: Jobs = None,
    threads: Threads = None,
    data: Data = None,
    output: Output = Path("results"),
    device: Device = None,
    workers: Workers = None,
    catalogue: Catalogue = None,
    format: Annotated[str, typer.Option(help="Of the table: terminal, markdown, csv or latex.")] = "terminal",
    quiet: Quiet = False,
) -> None:
    """Repeat a table of a paper: train its rows, then show our numbers beside the paper's and what differs.

    Finished runs are not repeated. Those of --small go into the folder small of the results, apart from others.

    densecl reproduce --list

    densecl reproduce disalvo2021:table2 --small

    densecl reproduce matsumoto2018:table1 --dry-run
    """
    from densecl.errors import SettingError
    from densecl.reproduce.plan import read_table
    from densecl.tables.forms.listing import render

    if list_all:
        typer.echo(_listed(catalogue), nl=False)
        return
    if table is None:
        raise SettingError("no table is named", "densecl reproduce --list names them")
    render([], format)  # refuses an unknown one before anything is run
    plan = read_table(table, catalogue)
    with loading():
        from densecl.cli import complain
        from densecl.reproduce.carry_out import prepared, repeat
        from densecl.terminal import columns_and_colour

    options = {"data": data, "device": device, "workers": workers, "catalogue": catalogue}
    options |= {"engine": engine, "jobs": jobs, "threads": threads, "quiet": quiet}
    ready = prepared(plan, output, small=small, seeds=seeds or (), assignments=assignments or (), **options)
    if dry_run:
        typer.echo(wrapped(ready.sweep.describe()))
        return
    listing, failed = repeat(ready, quiet=quiet)
    typer.echo(render([listing], format, width=columns_and_colour()[0]), nl=False)
    if failed:
        names = "; ".join(f"run {ended.job.number} ({ended.job})" for ended in failed)
        complain(f"{len(failed)} runs failed: {names}. the same command tries them again")
        raise typer.Exit(FAILED)


def _listed(catalogue: Path | None) -> str:
    """All tables, each with what it repeats and what it does not."""
    from densecl.reproduce.plan import read_table
    from densecl.settings.catalogue import reproductions

    lines = []
    for name in sorted(reproductions(catalogue)):
        plan = read_table(name, catalogue)
        lines += [
            f"{name}  {plan.summary}",
            *dict.fromkeys(f"    not repeated: {each.why}" for each in plan.not_repeated),
        ]
    return "".join(f"{line}\n" for line in lines)
