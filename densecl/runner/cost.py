"""What a run will cost, before it is run."""

import time
from collections.abc import Callable

import torch

from densecl.models.network import Network
from densecl.runner.build import build_network, build_scenario, build_strategy
from densecl.runner.plan import Plan
from densecl.settings.recipe import RunSettings
from densecl.strategies.base import Strategy
from densecl.tables.forms.text import humanise
from densecl.training.precision import Precision

PIXELS = 2**18  # at most, of the images that are measured together
MEASURED = 0.5  # seconds


def describe(plan: Plan, progress: Callable[[int, int], None] | None = None) -> str:
    """Plan and cost of a run as text: steps with their images, iterations and classes, network, estimated time.

    All that the run makes before it trains is made here as well, so what a run would refuse is refused.

    Raises:
        DenseCLError: as `densecl.runner.run.execute` before training.
    """
    s = plan.settings
    scenario, _ = build_scenario(plan, progress)
    network = build_network(without_download(s), plan.backbone)
    strategy = build_strategy(plan, scenario, network)
    if scenario.kind == "tasks":
        return _describe_tasks(plan, strategy)
    held = f"{len(scenario.test)} held out, test images not used" if s.data.validation else f"{len(plan.test)} test"
    lines = [
        f"{s.benchmark}  {plan.method.name}  {s.backbone}  seed {s.seed}",
        f"folder     {plan.folder}",
        f"data       {plan.train.root} ({len(plan.train)} train, {held})",
        f"stream     {s.stream.setting}, {s.stream.labels} labels",
        "",
        "step  images  epochs  iterations  classes",
    ]
    total = 0
    for experience in scenario.train_stream:
        images = len(experience.images.indices)
        epochs, iterations = strategy.length(experience)
        total += iterations
        names = ", ".join(scenario.class_names[label] for label in experience.new_classes)
        names = names if len(names) < 60 else names[:57] + "..."
        lines.append(f"{experience.step:4}  {images:6}  {epochs:6}  {iterations:10}  {names}")
    if scenario.by_task:
        network.task_heads.begin(scenario.tasks[0].name)
    network.grow(len(scenario.class_names))
    return "\n".join([*lines, *_cost(plan, network, total)])


def _describe_tasks(plan: Plan, strategy: Strategy) -> str:
    """The same of a sequence of tasks."""
    s, scenario, network = plan.settings, strategy.scenario, strategy.network
    lines = [
        f"{s.benchmark}  {plan.method.name}  {s.backbone}  seed {s.seed}",
        f"folder     {plan.folder}",
        "stream     a sequence of tasks",
        "",
        "step  images  test  epochs  iterations  outputs  task",
    ]
    total = 0
    for experience, tests, reader in zip(scenario.train_stream, scenario.tests, scenario.training.readers, strict=True):
        images = len(experience.images.indices)
        epochs, iterations = strategy.length(experience)
        total += iterations
        task = experience.task
        kind = f"{task.name}: {task.kind.replace('_', ' ')} on {reader.name}"  # type: ignore[attr-defined]
        counts = f"{experience.step:4}  {images:6}  {len(tests):4}  {epochs:6}  {iterations:10}  {task.outputs:7}"
        lines.append(f"{counts}  {kind}")
    network.task_heads.begin(scenario.tasks[0].name)
    network.grow(scenario.train_stream[0].n_outputs)
    return "\n".join([*lines, *_cost(plan, network, total)])


def _cost(plan: Plan, network: Network, total: int) -> list[str]:
    s = plan.settings
    parameters = sum(p.numel() for p in network.parameters())
    seconds = measure(plan, network)
    return [
        "",
        f"network    {parameters:,} parameters",
        f"training   {total:,} iterations of {s.training.batch} images on {s.device}, {s.training.precision}",
        f"estimate   {humanise(total * seconds)} ({seconds:.2f} s an iteration, forward and backward measured here,",
        "           without loading, teacher and evaluation)",
    ]


def without_download(settings: RunSettings) -> RunSettings:
    """The settings without timm's pretrained weights: a plan needs none of their numbers."""
    if settings.backbone_values.get("weights") != "timm":
        return settings
    return settings.model_copy(update={"backbone_values": {**settings.backbone_values, "weights": "none"}})


def measure(plan: Plan, network: Network) -> float:
    """Seconds an iteration: forward and backward of noise images, scaled to the batch.

    Large images are measured by two, small ones by as many as the batch has: there the time is not in the pixels.
    """
    s = plan.settings
    device = torch.device(s.device)
    network.to(device).train()
    crop = plan.train.read(0).image.shape[1:] if s.training.crop == "full" else s.training.crop
    height, width = (crop, crop) if isinstance(crop, int) else crop
    noise = torch.randn(max(2, min(s.training.batch, PIXELS // (height * width))), 3, height, width, device=device)
    precision = Precision(s.training.precision, device)
    best, spent, passes = float("inf"), 0.0, 0
    while passes < 2 or (spent < MEASURED and passes < 20):
        start = time.perf_counter()
        with precision.autocast():
            output = network(noise)
        (output.logits.float().mean() + sum(a.float().mean() for a in output.auxiliary)).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        spent += seconds if passes else 0.0  # the first one prepares
        best, passes = min(best, seconds), passes + 1
    return best * s.training.batch / len(noise)
