"""An iteration of methods that look at a teacher over one of fine-tuning, on the same batch of a second step."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.harness import SMALL_BACKBONE
from bench.rows import COST, Bench, Form, Row
from densecl.runner.build import build_loop, build_network, build_scenario
from densecl.runner.plan import make_plan
from densecl.training.loop import Loop

METHODS = ("mib", "plop", "mib+deepinversion(source=noise)")  # noise costs in an iteration what images cost
SMALL = {"settings": ("training.batch=4",), "backbone": SMALL_BACKBONE}


def measure(bench: Bench, settings: tuple[str, ...] = (), backbone: str | None = None) -> Iterator[Row]:
    """Forward, losses, backward and update of step 1 of `shapes15-5`, of each method and of fine-tuning in turn."""
    with TemporaryDirectory() as folder:

        def iteration(method: str) -> Callable[[], None]:
            options = {"backbone": backbone, "assignments": ["training.epochs=1", *settings], "output": Path(folder)}
            plan = make_plan("shapes15-5", method, device=str(bench.device), **options)
            scenario, _ = build_scenario(plan)
            return _second_step(build_loop(plan, scenario, build_network(plan.settings)))

        plain = Form("finetune", iteration("finetune"))
        for method in METHODS:
            yield bench.compare("an iteration of shapes15-5", Form(method, iteration(method)), plain, COST, least=0.2)


def _second_step(loop: Loop) -> Callable[[], None]:
    """One iteration of step 1 after a first step without any."""
    first, second = loop.scenario.experiences[:2]
    loop.begin(first)
    loop.finish(first)
    loop.begin(second)
    loop.begin_epoch()
    batch = next(iter(loop.loader))

    def train() -> None:
        loop.iterations = 0  # the schedule's end is never reached
        loop.update(batch)

    return train
