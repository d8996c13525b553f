"""`densecl probe`: why a run forgot."""

from typing import Annotated

import typer

from densecl.cli.options import Catalogue, Code, Data, Device, JointRun, Json, OwnBackbone, OwnData, Run, Workers


def probe(
    run: Run,
    joint: JointRun = None,
    gamma: Annotated[float, typer.Option(help="Of the ridge regression.")] = 1.0,
    data: Data = None,
    device: Device = None,
    workers: Workers = None,
    catalogue: Catalogue = None,
    strategy: Code = None,
    backbone: OwnBackbone = None,
    data_set: OwnData = None,
    as_json: Json = False,
) -> None:
    """Split what old classes lost into features and head, without training.

    On the kept weights of each step a linear head is fitted in closed form to all
    training images. What it loses from step to step the features lost; the rest
    is the method's head, by where the pixels went. Written to probe.json in the
    run's folder; densecl report shows all runs that were probed.

    densecl probe results/shapes15-5s/mib/bisenet-mini/s0-3e244ef5

    densecl probe results/shapes15-5s/mib/bisenet-mini/s0-3e244ef5 --json
    """
    from densecl.finished.probe import probe as fit
    from densecl.tables.anatomy import listings
    from densecl.tables.forms.listing import render
    from densecl.terminal import columns_and_colour

    own = {"strategy": strategy, "backbone": backbone, "data_set": data_set}
    where = {"data": data, "catalogue": catalogue}
    record, probed = fit(run, joint=joint, gamma=gamma, device=device, workers=workers, **where, **own)  # type: ignore[arg-type]
    if as_json:
        typer.echo(probed.model_dump_json())
        return
    typer.echo(render(listings(record, probed), width=columns_and_colour()[0]), nl=False)
    typer.echo(f"wrote {run / 'probe.json'}", err=True)
