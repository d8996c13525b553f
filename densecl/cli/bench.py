"""`densecl bench`: our forms against reference forms, in turn in one process."""

from typing import Annotated

import typer

KINDS = ("harness", "losses", "index")


def bench(
    kind: Annotated[str, typer.Argument(help="harness, losses, index or all.")] = "all",
    repeats: Annotated[int, typer.Option("--repeats", min=1)] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure speed as ratios to named reference forms: median of several repeats, run in turn."""
    import importlib
    import json

    from densecl.errors import UnknownNameError

    if kind not in (*KINDS, "all"):
        raise UnknownNameError("benchmark of speed", kind, (*KINDS, "all"))
    results = {}
    for name in KINDS if kind == "all" else (kind,):
        results[name] = importlib.import_module(f"densecl.bench.{name}").measure(repeats=repeats)
        if not as_json:
            typer.echo(f"{name}")
            for key, value in results[name].items():
                typer.echo(f"  {key:48} {value:.4g}" if isinstance(value, float) else f"  {key:48} {value}")
    if as_json:
        typer.echo(json.dumps(results, indent=1))
