"""What a checkpoint at the end of every epoch costs: a run with and without, in turn."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from densecl.runner.build import build_network, build_scenario, build_strategy
from densecl.runner.plan import Plan, make_plan
from densecl.runner.resume import Checkpoints
from densecl.streams.scenario import Scenario


def measure(repeats: int = 5, epochs: int = 4) -> dict[str, Any]:
    """Ratio of training with a checkpoint after every epoch to training without, on step 0 of `shapes15-5`."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        settings = [f"training.epochs={epochs}"]
        plan = make_plan("shapes15-5", "finetune", assignments=settings, device="cpu", output=folder)
        scenario, _ = build_scenario(plan)
        for index in scenario.train_stream[0].images.indices:
            scenario.training.reader.read(int(index))
        with_, without = [], []
        for repeat in range(repeats + 1):
            pair = (_train(plan, scenario, folder / str(repeat)), _train(plan, scenario, None))
            if repeat:  # the first turn warms up
                with_.append(pair[0])
                without.append(pair[1])
        size = max(path.stat().st_size for path in folder.rglob("*.ckpt"))
    ratios = [a[0] / b[0] for a, b in zip(with_, without, strict=True)]
    work = [a[1] / b[1] for a, b in zip(with_, without, strict=True)]
    return {
        "epochs": epochs,
        "repeats": repeats,
        "with over without checkpoints, median": statistics.median(ratios),
        "with over without checkpoints, min": min(ratios),
        "with over without checkpoints, max": max(ratios),
        "the same in CPU time of all threads, median": statistics.median(work),
        "the same in CPU time of all threads, max": max(work),
        "seconds an epoch, without": statistics.median(seconds for seconds, _ in without) / epochs,
        "bytes of a checkpoint": size,
    }


def _train(plan: Plan, scenario: Scenario, folder: Path | None) -> tuple[float, float]:
    """Seconds on the clock, and of the processor in all threads, which other programs disturb less."""
    strategy = build_strategy(plan, scenario, build_network(plan.settings))
    checkpoints = None if folder is None else Checkpoints(folder, plan.hash)
    if checkpoints is not None:
        strategy.after_epoch = lambda: checkpoints.save_epoch(strategy.state())
    start, used = time.perf_counter(), time.process_time()
    strategy.train(scenario.train_stream[0], eval_streams=[])
    if checkpoints is not None:
        checkpoints.close()
    return time.perf_counter() - start, time.process_time() - used
