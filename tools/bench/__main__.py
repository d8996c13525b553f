"""`make bench`: our forms against reference forms, in turn in one process."""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from bench import KINDS
from densecl.cli import complain
from densecl.cli.options import Data, Device
from densecl.errors import DenseCLError, UnknownNameError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
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
) -> None:
    """Measure speed as ratios to named reference forms, run in turn in one process.

    loader and index read a VOC tree; without one they draw a small one.
    """
    if kind not in (*KINDS, "all"):
        raise UnknownNameError("measurement", kind, (*KINDS, "all"))

    import torch

    from bench.rows import Bench, Row
    from bench.table import LEGEND, environment, machine_lines, render
    from bench.trees import find_tree
    from densecl.runner.plan import usable_device

    how = Bench(repeats, torch.device(usable_device(device)), data, not small if compile is None else compile)
    if data is not None:
        find_tree(data)
    machine, results = environment(how.device), []
    say = (lambda text: None) if as_json else (lambda text: print(text, flush=True))
    say(machine_lines(machine, small))
    for name in KINDS if kind == "all" else (kind,):
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        results += (part := list(measure(name, how, small)))
        say(render(part))
    say(LEGEND)
    if as_json:
        rows = [row.as_json() for row in results if isinstance(row, Row)]
        missing = [line._asdict() for line in results if not isinstance(line, Row)]
        print(json.dumps({"environment": machine, "small": small, "rows": rows, "missing": missing}, indent=1))


def measure(kind: str, how, small: bool = False) -> Iterator:
    """The rows of one kind as they are made; no goal is applied to small sizes."""
    module = importlib.import_module(f"bench.{kind}")
    for row in module.measure(how, **(module.SMALL if small else {})):
        missing = isinstance(row, tuple)
        yield row._replace(kind=kind) if missing else replace(row, kind=kind, goal=None if small else row.goal)


def main(words: list[str] | None = None) -> int:
    """Run the command and return its exit code; bad input is one line on stderr."""
    try:
        app(args=words, prog_name="bench", standalone_mode=False)
    except Exception as error:
        if not isinstance(error, DenseCLError) and not hasattr(error, "format_message"):  # of typer, about options
            raise
        complain(str(error) if isinstance(error, DenseCLError) else error.format_message())  # type: ignore[attr-defined]
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
