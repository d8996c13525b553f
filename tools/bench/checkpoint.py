"""What a checkpoint at the end of every epoch costs: a run with and without, in turn."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import goals
from bench.harness import SMALL_BACKBONE, decode_all, shapes_plan
from bench.rows import Bench, Row, Sense
from bench.timing import Form
from densecl.runner.build import build_network, build_scenario, build_strategy
from densecl.runner.plan import Plan
from densecl.runner.resume import Checkpoints
from densecl.strategies.base import Strategy
from densecl.streams.scenario import Scenario

SMALL = {"settings": ("training.iterations=2", "training.batch=4"), "backbone": SMALL_BACKBONE}
KIND = "checkpoint"


def measure(
    bench: Bench, settings: tuple[str, ...] = ("training.epochs=4",), backbone: str | None = None
) -> Iterator[Row]:
    """Training of step 0 of `shapes15-5` with a checkpoint after every epoch, over training without.

    Args:
        bench: how.
        settings: assignments that say how long a turn is.
        backbone: default that of the benchmark.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        plan = shapes_plan(bench, folder, settings, backbone)
        scenario, _ = build_scenario(plan)
        decode_all(scenario)
        made = bench.compare(
            KIND,
            f"step 0 of shapes15-5, {', '.join(settings)}",
            Form("checkpoint after every epoch", _train, lambda: _strategy(plan, scenario, folder)),
            Form("no checkpoint", _train, lambda: _strategy(plan, scenario, None)),
            Sense.COST,
            goal=goals.CHECKPOINT,
        )
        sizes = [path.stat().st_size for path in folder.rglob("*.ckpt")]
    yield replace(made, note=f"a checkpoint has {max(sizes) / 1e6:.1f} MB")


def _strategy(plan: Plan, scenario: Scenario, folder: Path | None) -> tuple[Strategy, Scenario, Checkpoints | None]:
    strategy = build_strategy(plan, scenario, build_network(plan.settings))
    if folder is None:
        return strategy, scenario, None
    checkpoints = Checkpoints(folder, plan.hash)
    strategy.after_epoch = lambda: checkpoints.save_epoch(strategy.state())
    return strategy, scenario, checkpoints


def _train(made: tuple[Strategy, Scenario, Checkpoints | None]) -> None:
    """All epochs; a checkpoint that is still being written is waited for."""
    strategy, scenario, checkpoints = made
    strategy.train(scenario.train_stream[0], eval_streams=[])
    if checkpoints is not None:
        checkpoints.close()
