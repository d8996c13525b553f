"""`make bench`: our forms against reference forms, in turn in one process."""

from pathlib import Path
from typing import Annotated

import typer

from bench import KINDS
from densecl.cli.options import Data, Device


def bench(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)} or all.")] = "all",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns of each form; the median counts.")] = 5,
    data: Data = None,
    device: Device = None,
    compile: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Measure forms compiled by torch too (default: but for --small)."),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="Tiny sizes: tries every measurement in seconds, judges nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the machine it was measured on.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write the table to, or as FILE.json JSON.")
    ] = None,
) -> None:
    """Measure speed as ratios to named reference forms, run in turn in one process.

    loader and index read a VOC tree; without one they draw a small one. Compiled
    forms are left out with a line where there is no compiler.
    """
    import json

    from densecl.errors import SettingError, UnknownNameError
    from densecl.files import write_text
    from densecl.terminal import columns_and_colour

    if kind not in (*KINDS, "all"):
        raise UnknownNameError("measurement", kind, (*KINDS, "all"))
    if output is not None and output.is_dir():
        raise SettingError(f"--output {output} is a folder", "name a file")

    import torch

    from bench.rows import Bench
    from bench.suite import Report, run
    from bench.table import render
    from densecl.runner.plan import usable_device

    tabled = output is not None or not as_json  # else JSON alone goes to the screen
    as_json = as_json or (output is not None and output.suffix == ".json")
    columns, colour = columns_and_colour()
    kinds, shown = KINDS if kind == "all" else (kind,), False

    def started(name: str) -> None:
        typer.echo(f"measuring {name} ...", err=True)

    def finished(name: str, report: Report) -> None:
        nonlocal shown
        if tabled:
            last = name == kinds[-1]
            part = render(report.of(name), width=columns or 80, colour=colour, machine=not shown, legend=last)
            typer.echo(part, nl=not last)
            shown = True

    settings = Bench(repeats, torch.device(usable_device(device)), data, not small if compile is None else compile)
    report = run(kinds, settings, small=small, started=started, finished=finished)
    if output is None and not as_json:
        return
    text = json.dumps(report.as_json(), indent=1) + "\n" if as_json else render(report)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)


if __name__ == "__main__":
    typer.run(bench)
