"""How long the trainer waits for data: the loader's share of an epoch, and images a second without training."""

import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from densecl.runner.build import build_network, build_scenario, build_strategy
from densecl.runner.plan import Plan, make_plan
from densecl.strategies.base import Strategy
from densecl.streams.scenario import Scenario
from densecl.training.batch import Batch
from densecl.training.loader import EpochBatches, make_loader

SETTINGS = ("training.crop=128", "evaluation.size=128", "training.epochs=1")
BACKBONE = "bisenet(encoder=resnet18, weights=none)"


class Waiting(Iterable[Batch]):
    """A loader that adds up how long each next batch took; the first of a pass, which starts the workers, apart."""

    def __init__(self, loader: Iterable[Batch]):
        self.loader, self.first, self.later = loader, 0.0, 0.0

    def __iter__(self) -> Iterator[Batch]:
        batches, number = iter(self.loader), 0
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            spent = time.perf_counter() - start
            if batch is None:
                return
            self.first, self.later = (spent, self.later) if number == 0 else (self.first, self.later + spent)
            number += 1
            yield batch


def measure(repeats: int = 3, data: Path | None = None, workers: int = 2) -> dict[str, Any]:
    """The share of step 0 of `voc15-5` that training waits for its loader, after the first batch.

    Args:
        repeats: passes over the step's images.
        data: a VOC tree; None looks in the usual places.
        workers: processes that load.
    """
    with TemporaryDirectory() as folder:
        plan = make_plan(
            "voc15-5",
            "finetune",
            backbone=BACKBONE,
            assignments=SETTINGS,
            data=data,
            workers=workers,
            output=Path(folder),
        )
        scenario, _ = build_scenario(plan)
        shares, firsts = [], []
        for _ in range(repeats):
            seconds, waiting = _train(plan, scenario, workers)
            shares.append(waiting.later / (seconds - waiting.first))
            firsts.append(waiting.first)
        rate = _images_a_second(plan, scenario, workers)
    return {
        "images": len(scenario.train_stream[0].images.indices),
        "workers": workers,
        "share of time waiting, median": statistics.median(shares),
        "share of time waiting, max": max(shares),
        "seconds to the first batch": statistics.median(firsts),
        "images a second, loading alone": rate,
    }


def _train(plan: Plan, scenario: Scenario, workers: int) -> tuple[float, Waiting]:
    strategy: Strategy = build_strategy(plan, scenario, build_network(plan.settings), workers)
    make = strategy.make_train_dataloader
    found: list[Waiting] = []

    def watched(**keywords: Any) -> None:
        make(**keywords)
        found.append(Waiting(strategy.dataloader))  # type: ignore[arg-type]
        strategy.dataloader = found[0]

    strategy.make_train_dataloader = watched  # type: ignore[method-assign]
    epoch = strategy.training_epoch
    spent = 0.0

    def timed(**keywords: Any) -> None:
        nonlocal spent
        start = time.perf_counter()
        epoch(**keywords)
        spent += time.perf_counter() - start

    strategy.training_epoch = timed  # type: ignore[method-assign]
    strategy.train(scenario.train_stream[0], eval_streams=[])
    return spent, found[0]


def _images_a_second(plan: Plan, scenario: Scenario, workers: int) -> float:
    n = len(scenario.train_stream[0].images.indices)
    batches = EpochBatches(n, plan.settings.training.batch, 0, 0)
    loader = make_loader(scenario.training, batches, workers, pin=False)
    start = time.perf_counter()
    images = sum(len(batch.image) for batch in loader)
    return images / (time.perf_counter() - start)
