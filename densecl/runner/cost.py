"""The cost of a run, estimated before it is run."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import cast

import torch

from densecl.data.dataset import Progress
from densecl.models.encoders import Encoder
from densecl.models.network import Network
from densecl.runner.build import build_loop, build_network, build_scenario
from densecl.runner.plan import Plan
from densecl.runner.rehearsal import check_images, rehearse
from densecl.settings.recipe import RunSettings
from densecl.terminal import humanise
from densecl.training import features
from densecl.training.precision import Precision

PIXELS = 2**18  # at most, of the images that are measured together
MEASURED = 0.5  # seconds


def describe(plan: Plan, scan: Callable[[str], Progress] | None = None) -> str:
    """Plan and cost of a run as text: steps with their images, iterations and classes, network, estimated time.

    All that the run makes before it trains is made here as well, and refused for the same reasons. `scan` makes what
    hears (done, total) of work with a name.
    """
    s = plan.settings
    scenario, _ = build_scenario(plan, scan("scanning masks") if scan else None)
    network = build_network(without_download(s), plan.backbone)
    check_images(scenario, scan)
    rehearse(plan, scenario, network)
    loop = build_loop(plan, scenario, network)
    stream, sequence = scenario.stream, scenario.stream.kind == "tasks"
    lines = [f"{s.benchmark}  {plan.method.name}  {s.backbone}  seed {s.seed}", f"folder     {plan.folder}"]
    if sequence:
        lines += ["stream     a sequence of tasks", "", "step  images  test  epochs  iterations  outputs  task"]
    else:
        tests = len(scenario.tests[0]) if s.data.validation else len(plan.readers[0][1])
        held = f"{tests} held out, test images not used" if s.data.validation else f"{tests} test"
        lines += [
            f"data       {plan.train.root} ({len(plan.train)} train, {held})",
            f"stream     {s.stream.setting}, {s.stream.labels} labels",
            "",
            "step  images  epochs  iterations  classes",
        ]
    total = 0
    for experience, reader in zip(scenario.experiences, scenario.training.readers, strict=True):
        epochs, iterations = loop.length(experience)
        total += iterations
        number, task, images = experience.step, experience.task, len(experience.images.indices)
        if sequence:
            kind = f"{task.name}: {task.kind.replace('_', ' ')} on {reader.name}"  # type: ignore[attr-defined]
            tests = len(scenario.tests_of(number))
            lines.append(f"{number:4}  {images:6}  {tests:4}  {epochs:6}  {iterations:10}  {task.outputs:7}  {kind}")
        else:
            names = ", ".join(stream.class_names[label] for label in experience.new_classes)
            names = names if len(names) < 60 else names[:57] + "..."
            lines.append(f"{number:4}  {images:6}  {epochs:6}  {iterations:10}  {names}")
    for step in stream.steps[:1] if stream.by_task else stream.steps:  # the network at its largest
        loop.enter(step)
    parameters = sum(p.numel() for p in network.parameters())
    seconds = measure(plan, network)
    lines += [
        "",
        f"network    {parameters:,} parameters",
        f"training   {total:,} iterations of {s.training.batch} images on {s.device}, {s.training.precision}",
        f"estimate   {humanise(total * seconds)} ({seconds:.2f} s an iteration, forward and backward measured here,",
        "           without loading, teacher and evaluation)",
    ]
    return "\n".join(lines)


def without_download(settings: RunSettings) -> RunSettings:
    """The settings without timm's pretrained weights, which no plan needs."""
    if settings.backbone_values.get("weights") != "timm":
        return settings
    return settings.model_copy(update={"backbone_values": {**settings.backbone_values, "weights": "none"}})


def measure(plan: Plan, network: Network) -> float:
    """Measure the seconds of an iteration: forward and backward of noise images, scaled to the batch.

    Large images are measured by two, small ones by as many as the batch has: there the time is not in the pixels.
    A frozen encoder has no backward pass, and none at all where its maps are kept.
    """
    s = plan.settings
    device = torch.device(s.device)
    network.to(device).train()
    crop = plan.train.read(0).image.shape[1:] if s.training.crop == "full" else s.training.crop
    height, width = (crop, crop) if isinstance(crop, int) else crop
    noise = torch.randn(max(2, min(s.training.batch, PIXELS // (height * width))), 3, height, width, device=device)
    precision = Precision(s.training.precision, device)
    maps = None
    if s.training.freezes(0):
        features.fix(network.backbone)
        if s.training.cache_features:
            maps = cast(Encoder, network.backbone.encoder)(noise)
    best, spent, passes = float("inf"), 0.0, 0
    while passes < 2 or (spent < MEASURED and passes < 20):
        start = time.perf_counter()
        with precision.autocast(), features.given(network, maps):
            output = network(noise, s.training.loss_stride)
        (output.logits.float().mean() + sum(a.float().mean() for a in output.auxiliary)).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        spent += seconds if passes else 0.0  # the first one prepares
        best, passes = min(best, seconds), passes + 1
    return best * s.training.batch / len(noise)


@contextlib.contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
