"""The cost of the training loop over a bare PyTorch loop: same data, network, loss, optimiser and order, in turn."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bench.rows import COST, Bench, Form, Goal, Missing, Row
from densecl.losses import cross_entropy
from densecl.models.network import Network, Output
from densecl.runner.build import build_loop, build_network, build_scenario
from densecl.runner.checkpoint import Checkpoints
from densecl.runner.evaluation import evaluate
from densecl.runner.plan import Plan, make_plan
from densecl.seeding import derive
from densecl.streams.samples import TestSamples
from densecl.streams.scenario import Scenario
from densecl.training.batch import normalise
from densecl.training.loader import EpochBatches, collate, make_loader
from densecl.training.loop import Loop
from densecl.training.schedule import make_optimizer, make_schedule

SMALL_BACKBONE = (
    "bisenet(encoder=mini, encoder_widths=(4,8,8,8), weights=none, width=8, spatial=(8,8), spatial_width=8,"
    "context_width=8, fusion=1)"
)
SMALL = {"iterations": 2, "settings": ("training.batch=4",), "backbone": SMALL_BACKBONE, "tested": 8}


def train(loop: Loop, checkpoints: Checkpoints | None = None) -> None:
    """Train step 0 by our loop. Only this function knows it."""
    if checkpoints is not None:
        loop.after_epoch = lambda: checkpoints.save_epoch(loop.state())
    loop.train(loop.scenario.experiences[:1])


def shapes_plan(bench: Bench, folder: Path, assignments: Sequence[str], backbone: str | None) -> Plan:
    """Fine-tuning on `shapes15-5` with these settings, to be kept in `folder`."""
    options = {"backbone": backbone, "assignments": assignments, "device": str(bench.device), "output": folder}
    return make_plan("shapes15-5", "finetune", **options)


def decode_all(scenario: Scenario) -> None:
    """Decode the training images of step 0 once, as after the first epoch of any run."""
    for index in scenario.experiences[0].images.indices:
        scenario.training.readers[0].read(int(index))


def measure(
    bench: Bench, iterations: int = 60, settings: tuple[str, ...] = (), backbone: str | None = None, tested: int = 500
) -> Iterator[Row | Missing]:
    """Training and evaluation of step 0 of `shapes15-5`; with a GPU, the share of its peak that training reaches.

    Both loops train the same iterations from the same weights; the note says whether the final ones are equal.
    """
    with TemporaryDirectory() as folder:
        assignments = [f"training.iterations={iterations}", "training.augmentation=flip", *settings]
        plan = shapes_plan(bench, Path(folder), assignments, backbone)
        scenario, _ = build_scenario(plan)
        decode_all(scenario)
        loops: list[Loop] = []
        networks: list[Network] = []

        def ours(loop: Loop) -> None:
            train(loop)
            loops[:] = [loop]

        def bare(network: Network) -> None:
            networks[:] = [bare_loop(network, plan, scenario, iterations)]

        trained = bench.compare(
            f"training, {iterations} iterations of shapes15-5",
            Form("our loop", ours, lambda: build_loop(plan, scenario, build_network(plan.settings))),
            Form("bare PyTorch loop", bare, lambda: build_network(plan.settings)),
            COST,
            goal=Goal(ratio=1.03),
        )
        yield replace(trained, note=f"final weights of both {_equality(loops[0].network, networks[0])}")
        [whole], n = scenario.tests, len(scenario.stream.class_names)
        samples = TestSamples(whole.reader, whole.indices[:tested], whole.table, whole.transform)
        loops[0]._scenario, batch = replace(scenario, tests=(samples,)), plan.settings.evaluation.batch
        yield bench.compare(
            f"evaluation, {len(samples)} images of shapes15-5",
            Form("our evaluation", lambda: evaluate(loops[0], 0, batch)),
            Form("bare PyTorch loop", lambda: bare_evaluation(loops[0], samples, n, batch)),
            COST,
        )
    if bench.device.type == "cuda":
        from bench.peak import measure_share

        yield from measure_share(bench)
    else:
        yield Missing("the share of the device's peak is measured on a GPU alone")


def loss_of(output: Output, target: Tensor) -> Tensor:
    """Cross-entropy of the logits and of the auxiliary ones."""
    return sum((cross_entropy(logits, target) for logits in output.auxiliary), cross_entropy(output.logits, target))


def bare_loop(network: Network, plan: Plan, scenario: Scenario, iterations: int) -> Network:
    """Training as one would write it by hand."""
    s, device = plan.settings, torch.device(plan.settings.device)
    experience = scenario.experiences[0]
    torch.manual_seed(derive(s.seed, "head", 0))
    network.grow(experience.n_outputs)
    network.to(device)
    mean, std = (part.to(device) for part in scenario.normalisation)
    batches = EpochBatches(len(experience.images.indices), s.training.batch, s.seed, 0)
    loader = make_loader(scenario.training, batches, 0, pin=device.type == "cuda")
    optimizer = make_optimizer([{"params": list(network.parameters())}], s.training, 0)
    schedule = make_schedule(optimizer, s.training, iterations)
    network.train()
    done, epoch = 0, 0
    while done < iterations:
        torch.manual_seed(derive(s.seed, "epoch", 0, epoch))
        batches.set_epoch(epoch, iterations - done)
        for batch in loader:
            image, target = batch.image.to(device, non_blocking=True), batch.target.to(device, non_blocking=True).long()
            loss = loss_of(network(normalise(image, mean, std)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
        epoch += 1
    return network


@torch.no_grad()
def bare_evaluation(loop: Loop, samples: TestSamples, n: int, batch: int) -> Tensor:
    """The confusion matrix (n, n) as one would write it by hand, for images of one size."""
    network, device = loop.network.eval(), loop.device
    counts = torch.zeros(256 * n, dtype=torch.int64, device=device)
    mean, std = (part.to(device) for part in loop.normalisation)
    for part in DataLoader(samples, batch_size=batch, collate_fn=collate):
        image, target = part.image.to(device), part.target.to(device).long()
        prediction = network(normalise(image, mean, std)).logits.argmax(1)
        counts += torch.bincount((target * n + prediction).flatten(), minlength=256 * n)
    return counts.view(256, n)[:n].cpu()  # rows from n on are void


def _equality(a: Network, b: Network) -> str:
    ours, theirs = a.state_dict(), b.state_dict()
    if all(torch.equal(ours[key], theirs[key]) for key in theirs):
        return "are equal bit for bit"
    furthest = max(float((ours[key].float() - theirs[key].float()).abs().max()) for key in theirs)
    return f"differ by up to {furthest:.1e}"
