"""What the training loop costs over a bare PyTorch loop: same data, network, loss, optimiser and order, run in turn."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from densecl.losses import cross_entropy
from densecl.models.network import Network
from densecl.runner.build import build_network, build_scenario, build_strategy
from densecl.runner.evaluation import confusion
from densecl.runner.plan import Plan, make_plan
from densecl.seeding import derive
from densecl.streams.scenario import Scenario
from densecl.training.batch import normalise
from densecl.training.loader import EpochBatches, make_loader
from densecl.training.schedule import make_optimizer, make_schedule


def measure(repeats: int = 7, iterations: int = 60) -> dict[str, Any]:
    """Ratio of our loop (with the evaluator's bookkeeping) to a bare loop on step 0 of `shapes15-5`.

    Both train the same iterations from the same weights, in turn; the final weights must be equal.
    """
    with TemporaryDirectory() as folder:
        assignments = [f"training.iterations={iterations}", "training.augmentation=flip"]
        plan = make_plan("shapes15-5", "finetune", assignments=assignments, device="cpu", output=Path(folder))
        scenario, _ = build_scenario(plan)
        for index in scenario.train_stream[0].images.indices:  # decoded once, as after the first epoch of any run
            scenario.training.reader.read(int(index))
        ours, bare, equal = [], [], True
        for repeat in range(repeats + 1):
            seconds_ours, network = _ours(plan, scenario)
            seconds_bare, reference = _bare(plan, scenario, iterations)
            states = network.state_dict(), reference.state_dict()
            equal = equal and all(torch.equal(states[0][key], states[1][key]) for key in states[1])
            if repeat:  # the first turn warms up
                ours.append(seconds_ours)
                bare.append(seconds_bare)
        ratios = [a / b for a, b in zip(ours, bare, strict=True)]
        start = time.perf_counter()
        strategy = build_strategy(plan, scenario, network)  # type: ignore[possibly-undefined]
        confusion(strategy, scenario.test, len(scenario.class_names), plan.settings.evaluation.batch)
        return {
            "iterations": iterations,
            "repeats": repeats,
            "loop over bare loop, median": statistics.median(ratios),
            "loop over bare loop, min": min(ratios),
            "loop over bare loop, max": max(ratios),
            "ms an iteration, ours": 1000 * statistics.median(ours) / iterations,
            "ms an iteration, bare": 1000 * statistics.median(bare) / iterations,
            "same weights": equal,
            "seconds of one evaluation": time.perf_counter() - start,
        }


def _ours(plan: Plan, scenario: Scenario) -> tuple[float, Network]:
    network = build_network(plan.settings)
    strategy = build_strategy(plan, scenario, network)
    start = time.perf_counter()
    strategy.train(scenario.train_stream[0], eval_streams=[])
    return time.perf_counter() - start, network


def _bare(plan: Plan, scenario: Scenario, iterations: int) -> tuple[float, Network]:
    """The loop as one would write it by hand."""
    s = plan.settings
    network = build_network(s)
    experience = scenario.train_stream[0]
    start = time.perf_counter()
    torch.manual_seed(derive(s.seed, "head", 0))
    network.grow(experience.n_outputs)
    batches = EpochBatches(len(experience.images.indices), s.training.batch, s.seed, 0)
    loader = make_loader(scenario.training, batches, 0, pin=False)
    optimizer = make_optimizer([{"params": list(network.parameters())}], s.training, 0)
    schedule = make_schedule(optimizer, s.training, iterations)
    network.train()
    done, epoch = 0, 0
    while done < iterations:
        torch.manual_seed(derive(s.seed, "epoch", 0, epoch))
        batches.set_epoch(epoch, iterations - done)
        for batch in loader:
            output = network(normalise(batch.image, *scenario.normalisation))
            loss = cross_entropy(output.logits, batch.target)
            for logits in output.auxiliary:
                loss = loss + cross_entropy(logits, batch.target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
        epoch += 1
    return time.perf_counter() - start, network
