"""What a run will cost, before it is run."""

import time

import torch

from densecl.reporting.render import humanise
from densecl.runner.build import build_network
from densecl.runner.plan import Plan
from densecl.streams import protocol
from densecl.training.loader import step_length
from densecl.training.precision import Precision


def describe(plan: Plan) -> str:
    """Plan and cost of a run as text: steps with their images, iterations and classes, network, estimated time.

    Raises:
        DataError: the data is not there.
    """
    from densecl.data.class_index import class_index

    s = plan.settings
    joint = plan.method.strategy.cls.joint  # type: ignore[attr-defined]
    steps = (tuple(c for step in plan.steps for c in step),) if joint else plan.steps
    chosen = protocol.select(class_index(plan.train), steps, "overlapped" if joint else s.stream.setting)
    lines = [
        f"{s.benchmark}  {plan.method.name}  {s.backbone}  seed {s.seed}",
        f"folder     {plan.folder}",
        f"data       {plan.train.root} ({len(plan.train)} train, {len(plan.test)} test)",
        f"stream     {s.stream.setting}, {s.stream.labels} labels",
        "",
        "step  images  epochs  iterations  classes",
    ]
    total = 0
    for k, (classes, images) in enumerate(zip(steps, chosen, strict=True)):
        epochs, iterations = step_length(len(images), s.training.batch, *s.training.length(k))
        total += iterations
        names = ", ".join(plan.train.class_names[c - 1] for c in classes)
        lines.append(
            f"{k:4}  {len(images):6}  {epochs:6}  {iterations:10}  {names if len(names) < 60 else names[:57] + '...'}"
        )
    seconds, parameters = measure(plan, len(plan.steps))
    lines += [
        "",
        f"network    {parameters:,} parameters",
        f"training   {total:,} iterations of {s.training.batch} images on {s.device}, {s.training.precision}",
        f"estimate   {humanise(total * seconds)} ({seconds:.2f} s an iteration, forward and backward measured here,",
        "           without loading, teacher and evaluation)",
    ]
    return "\n".join(lines)


def measure(plan: Plan, steps: int) -> tuple[float, int]:
    """(seconds an iteration, parameters): forward and backward of two noise images, scaled to the batch."""
    s = plan.settings
    device = torch.device(s.device)
    values = {**s.backbone_values, "weights": "none"} if "weights" in s.backbone_values else s.backbone_values
    network = build_network(s.model_copy(update={"backbone_values": values}))
    network.grow(1 + sum(map(len, plan.steps)))
    network.to(device).train()
    crop = plan.train.read(0).image.shape[1:] if s.training.crop == "full" else s.training.crop
    height, width = (crop, crop) if isinstance(crop, int) else crop
    images = min(2, s.training.batch)
    noise = torch.randn(max(images, 2), 3, height, width, device=device)
    precision = Precision(s.training.precision, device)
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        with precision.autocast():
            output = network(noise)
        (output.logits.float().mean() + sum(a.float().mean() for a in output.auxiliary)).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best * s.training.batch / len(noise), sum(p.numel() for p in network.parameters())
