"""The evaluations of a whole run beside its training."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.harness import SMALL_BACKBONE
from bench.rows import WAITING, Bench, Form, Goal, Row
from densecl.runner.build import build_loop, build_network, build_scenario
from densecl.runner.evaluation import evaluate
from densecl.runner.plan import make_plan
from densecl.streams.samples import TestSamples

SMALL = {"settings": ("training.batch=4",), "backbone": SMALL_BACKBONE, "iterations": 2, "tested": 8}


def measure(
    bench: Bench,
    iterations: int = 30,
    settings: tuple[str, ...] = (),
    backbone: str | None = None,
    tested: int | None = None,
) -> Iterator[Row]:
    """Fine-tuning on `shapes15-5s`: an evaluation after each step over all training.

    Both forms are given the first step: `iterations` of it, and one evaluation on `tested` images (None: all); the
    times are multiplied by what they lack.
    """
    with TemporaryDirectory() as folder:
        options = {"backbone": backbone, "assignments": list(settings), "output": Path(folder)}
        plan = make_plan("shapes15-5s", "finetune", device=str(bench.device), **options)
        scenario, _ = build_scenario(plan)
        [whole] = scenario.tests
        samples = TestSamples(whole.reader, whole.indices[:tested], whole.table, whole.transform)
        loop = build_loop(plan, replace(scenario, tests=(samples,)), build_network(plan.settings))
        experiences = loop.scenario.experiences
        planned = sum(loop.length(experience)[1] for experience in experiences)
        loop.begin(experiences[0])
        loop.begin_epoch()
        batch = next(iter(loop.loader))

        def train() -> None:
            loop.network.train()
            for _ in range(iterations):
                loop.iterations = 0  # the schedule's end is never reached
                loop.update(batch)

        scored, s = len(experiences) * len(whole) / len(samples), plan.settings.evaluation
        yield bench.compare(
            f"the {len(experiences)} evaluations of shapes15-5s, {len(whole)} images each",
            Form("evaluation", lambda: evaluate(loop, 0, s.batch, settings=s), scale=scored),
            Form(f"training, {planned} iterations", train, scale=planned / iterations),
            WAITING,
            goal=Goal(ratio=0.08),
        )
