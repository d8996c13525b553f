"""The cost of a checkpoint at the end of every epoch: training with and without, in turn."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.harness import SMALL_BACKBONE, decode_all, shapes_plan, train
from bench.rows import COST, Bench, Form, Goal, Row
from densecl.runner.build import build_loop, build_network, build_scenario
from densecl.runner.checkpoint import Checkpoints

SMALL = {"settings": ("training.iterations=2", "training.batch=4"), "backbone": SMALL_BACKBONE}


def measure(
    bench: Bench, settings: tuple[str, ...] = ("training.epochs=4",), backbone: str | None = None
) -> Iterator[Row]:
    """Training of step 0 of `shapes15-5`; the assignments say how long a turn is."""
    with TemporaryDirectory() as folder:
        plan = shapes_plan(bench, Path(folder), settings, backbone)
        scenario, _ = build_scenario(plan)
        decode_all(scenario)

        def keeping(loop) -> None:
            checkpoints = Checkpoints(Path(folder), plan.hash)
            train(loop, checkpoints)
            checkpoints.close()  # one that is still being written is waited for

        def loop():
            return build_loop(plan, scenario, build_network(plan.settings))

        row = bench.compare(
            f"step 0 of shapes15-5, {', '.join(settings)}",
            Form("checkpoint after every epoch", keeping, loop),
            Form("no checkpoint", train, loop),
            COST,
            goal=Goal(ratio=1.02),
        )
        size = max(path.stat().st_size for path in Path(folder).rglob("*.ckpt"))
    yield replace(row, note=f"a checkpoint has {size / 1e6:.1f} MB")
