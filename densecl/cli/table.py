"""`densecl table`: compare runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from densecl.cli.options import Benchmarks, Catalogue, Columns, Filter, Group, Runs, Sort

SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def table(
    folder: Runs = Path("results"),
    per_step: Annotated[bool, typer.Option("--per-step", help="mIoU of all classes seen, after each step.")] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="IoU of each class after the last step, by method.")
    ] = False,
    group: Group = None,
    labels: Annotated[
        str | None, typer.Option(help="Score classes not learnt yet as under mib2020, plop2021 or strict.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Numbers of papers beside ours: published, or a TOML file or folder.")
    ] = None,
    benchmark: Benchmarks = None,
    filter: Filter = None,
    sort: Sort = None,
    columns: Columns = None,
    spread: Annotated[
        str, typer.Option(help="After ±: std, the deviation over seeds, or interval, half the mean's 95 % interval.")
    ] = "std",
    over: Annotated[
        list[str] | None,
        typer.Option(help="Average over this setting too, such as 'stream.order'; repeatable."),
    ] = None,
    mix: Annotated[
        bool, typer.Option("--mix", help="Average runs of differing versions, data or devices, with a footnote.")
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            help="paper: as papers print them; field: all methods and benchmarks, with costs and papers' numbers."
        ),
    ] = None,
    honest: Annotated[
        bool, typer.Option("--honest", help="What a referee asks of each row, and what it lacks.")
    ] = False,
    stability: Annotated[
        bool, typer.Option("--stability", help="How the order of methods changes with the rules: Kendall's tau, flips.")
    ] = False,
    anatomy: Annotated[
        bool, typer.Option("--anatomy", help="IoU that old classes lost by features and by the head, of probed runs.")
    ] = False,
    cite: Annotated[
        bool, typer.Option("--cite", help="With --layout paper in LaTeX: \\cite keys behind names.")
    ] = False,
    catalogue: Catalogue = None,
    format: Annotated[
        str | None,
        typer.Option(help="terminal, markdown, csv or latex (default: by --output's suffix, else terminal)."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of the screen.")] = None,
) -> None:
    """Compare runs: one row per configuration, mean and standard deviation over seeds.

    IoU in percent by range of classes (in CSV fractions of 1, time in seconds).
    The best of each column is bold, ≈ marks what a paired test cannot tell from
    it. Unfinished runs, methods that are told the task at test time, and joint
    are shown but not ranked.

    densecl table results/ -b voc15-5s --group fg-only --against published

    densecl table results/ --format latex -o table.tex
    """
    from densecl.terminal import columns_and_colour

    width, colour = columns_and_colour()
    form = format or (SUFFIXES.get(output.suffix.lower(), "terminal") if output else "terminal")
    if output is not None:
        width, colour = None, False
    common = {"benchmark": benchmark or (), "filter": filter or (), "group": group, "mix": mix, "complain": _complain}
    views = {"honest": honest, "stability": stability, "anatomy": anatomy, "field": layout == "field"}
    if named := [view for view, is_asked in views.items() if is_asked]:
        from densecl.tables.forms.listing import render as lay_out
        from densecl.tables.referee import OPTIONS, referee

        view, *more = named
        others = {"--per-step": per_step, "--labels": labels, "--sort": sort, "--over": over, "--columns": columns}
        others |= {"--per-class": per_class, "--cite": cite, "--group": group if view != "stability" else None}
        others |= {"--layout": layout if layout != "field" else None} | {OPTIONS[other]: True for other in more}
        if view == "field":
            common |= {"against": _published(against or "published", catalogue), "catalogue": catalogue}
        else:
            others |= {"--against": against}
        _refuse_beside(OPTIONS[view], others)
        _show(lay_out(referee(folder, view, **common), form, width=width), output)
        return
    published = () if against is None else _published(against, catalogue)
    from densecl.tables.compare import table as compare
    from densecl.tables.forms.text import render

    if cite and layout != "paper":
        from densecl.errors import SettingError

        raise SettingError("--cite names the sources of --layout paper", "add it, or leave out --cite")
    tables = compare(
        folder,
        **common,
        per_step=per_step,
        per_class=per_class,
        labels=labels,
        layout=layout,
        against=published,
        over=over or (),
        catalogue=catalogue,
        sort=sort,
        columns=columns or (),
    )
    _show(render(tables, form, width=width, colour=colour, spread=spread, cite=cite), output)


def _show(text: str, output: Path | None) -> None:
    """Write the text to a file, or to the screen."""
    if output is None:
        typer.echo(text, nl=False)
        return
    from densecl.files import write_text

    write_text(output, text)
    typer.echo(f"wrote {output}", err=True)


def _complain(message: str) -> None:
    typer.echo(f"densecl: {message}", err=True)


def _refuse_beside(view: str, options: Mapping[str, object]) -> None:
    """Refuse options that say nothing about a view."""
    if named := [name for name, value in options.items() if value]:
        from densecl.errors import SettingError

        raise SettingError(f"{view} takes no {', '.join(named)}", f"leave out {', '.join(named)}")


def _published(name: str, catalogue: Path | None) -> list[Path]:
    """The files of `--against`."""
    from densecl.errors import SettingError
    from densecl.settings.catalogue import published_files

    place = Path(name)
    if name == "published":
        files = published_files(catalogue)
    else:
        files = sorted(place.glob("*.toml")) if place.is_dir() else [place] if place.is_file() else []
    if not files:
        raise SettingError(f"--against {name}: no published numbers there", "write published, or a TOML file or folder")
    return files
