"""`densecl report`: one page of all runs."""

from pathlib import Path
from typing import Annotated

import typer

from densecl.cli.options import Benchmarks, Columns, Filter, Group, Runs, Sort
from densecl.terminal import loading


def report(
    folder: Runs = Path("results"),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page to write (default: report.html, or leaderboard.html)."),
    ] = None,
    leaderboard: Annotated[
        bool,
        typer.Option("--leaderboard", help="The rankings alone, to sort and to filter by backbone, protocol, memory."),
    ] = False,
    benchmark: Benchmarks = None,
    filter: Filter = None,
    group: Group = None,
    sort: Sort = None,
    columns: Columns = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Set-ups of each benchmark that have figures and details; all are ranked. Default: some dozens."
        ),
    ] = None,
) -> None:
    """Write one HTML page that opens offline: the best of each benchmark, then rankings, figures, pictures, settings.

    Means over seeds have 95 % intervals, rows are tested against the best. Records and pictures that cannot be read are
    named and left out. Which runs are shown, and how, is chosen as for 'densecl table'.

    densecl report results/ -o report.html

    densecl report results/ -b voc15-5s --rows 20

    densecl report results/ --leaderboard -o leaderboard.html

    densecl report results/ --filter setting=disjoint --group fg-only --sort added
    """
    with loading():
        from densecl.report.make import report as write

    chosen = {"filter": filter or (), "group": group, "sort": sort, "columns": columns or ()}
    if leaderboard and rows is not None:
        from densecl.errors import SettingError

        raise SettingError("--leaderboard has all rows and no figures", "leave out --rows")
    output = output or Path("leaderboard.html" if leaderboard else "report.html")
    for note in write(folder, output, benchmark=benchmark or (), rows=rows, leaderboard=leaderboard, **chosen):
        typer.echo(f"densecl: left out: {note}", err=True)
    typer.echo(f"wrote {output} ({output.stat().st_size / 2**20:.2f} MiB)", err=True)
