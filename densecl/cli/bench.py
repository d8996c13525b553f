"""`densecl bench`: our forms against reference forms, in turn in one process."""

from typing import Annotated

import typer

from densecl.cli.options import Data

KINDS = ("harness", "loader", "index", "losses", "checkpoint", "masking", "inversion")


def bench(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)} or all.")] = "all",
    repeats: Annotated[int, typer.Option("--repeats", min=1)] = 5,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure speed as ratios to named reference forms: median of several repeats, run in turn.

    `loader` and `index` need a VOC tree (--data or DENSECL_DATA).
    """
    import importlib
    import json

    from densecl.data import locate, open_dataset
    from densecl.errors import UnknownNameError

    if kind not in (*KINDS, "all"):
        raise UnknownNameError("measurement", kind, (*KINDS, "all"))
    results = {}
    for name in KINDS if kind == "all" else (kind,):
        module = importlib.import_module(f"densecl.bench.{name}")
        if name == "loader":
            results[name] = module.measure(repeats=repeats, data=locate("voc", data))
        elif name == "index":
            results[name] = module.measure(open_dataset("voc", "train", data), repeats=repeats)
        else:
            results[name] = module.measure(repeats=repeats)
        if not as_json:
            _show(name, results[name])
    if as_json:
        typer.echo(json.dumps(results, indent=1))


def _show(name: str, values: dict, indent: str = "") -> None:
    typer.echo(f"{indent}{name}")
    for key, value in values.items():
        if isinstance(value, dict):
            _show(key, value, indent + "  ")
        else:
            typer.echo(f"{indent}  {key:48} {f'{value:.4g}' if isinstance(value, float) else value}")
