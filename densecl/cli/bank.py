"""`densecl bank`: the synthetic images of a run, in figures."""

import typer

from densecl.cli.options import Code, Json, OtherRun, OwnBackbone, OwnData, Run
from densecl.terminal import loading


def bank(
    run: Run,
    judge: OtherRun = None,
    strategy: Code = None,
    backbone: OwnBackbone = None,
    data_set: OwnData = None,
    as_json: Json = False,
) -> None:
    """Show the banks of synthetic images that a run with +deepinversion replayed: classes, figures, gallery.

    densecl bank RUN

    densecl bank RUN --judge OTHER_RUN --json
    """
    import json

    with loading():
        from densecl.data.places import cache_folder
        from densecl.finished.judge import judged

    banks = judged(run, judge, strategy=strategy, backbone=backbone, data_set=data_set)
    if as_json:
        typer.echo(json.dumps(banks, indent=1))
        return
    for each in banks:
        folder = cache_folder() / "banks" / each["key"]
        labels = ", ".join(map(str, each["labels"]))
        typer.echo(f"made before step {each['step']}, of the classes {labels}\n  {folder / 'gallery.png'}")
        for group in ("quality", "agreement"):
            for key, value in each.get(group, {}).items():
                typer.echo(f"  {f'{group}: {key}':28} {value:.3f}")
