"""Optimisers and the learning rate per iteration, restarted each step."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from densecl.optimizers import SGD, AdamW
from densecl.settings.recipe import TrainingSettings

Factor = Callable[[int, int], float]


def make_optimizer(groups: list[dict[str, Any]], settings: TrainingSettings, step: int) -> torch.optim.Optimizer:
    """The optimiser of a step; groups may carry their own `lr` (absolute), `lr_scale` and `weight_decay`."""
    rate = settings.rate(step)
    groups = [{**group, "lr": group.get("lr", rate * group.pop("lr_scale", 1.0))} for group in map(dict, groups)]
    # fused kernels update all parameters in one call: a third of the time of a small network's iteration otherwise
    if settings.optimizer == "adamw":
        return AdamW(groups, lr=rate, weight_decay=settings.weight_decay, fused=True)
    momentum = settings.momentum
    options = {"nesterov": momentum > 0, "weight_decay": settings.weight_decay, "fused": True}
    optimizer = SGD(groups, rate, momentum, **options)
    # The fused kernel fails when some parameters have had a gradient before and others have their first one now, as in
    # training by turns. Zeros give the same first step: 0 * momentum + gradient.
    for parameter in (p for group in optimizer.param_groups for p in group["params"] if momentum):
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def make_schedule(
    optimizer: torch.optim.Optimizer,
    settings: TrainingSettings,
    iterations: int,
    factors: Sequence[Factor | None] = (),
) -> LambdaLR:
    """The schedule of a step, to be stepped after each iteration; a group's own `factor` comes before the settings'."""
    iterations = max(iterations, 1)
    chosen = [factor or partial(decay, settings) for factor in factors or [None] * len(optimizer.param_groups)]
    return LambdaLR(optimizer, [lambda i, factor=factor: factor(iterations, i) for factor in chosen])


def decay(settings: TrainingSettings, iterations: int, i: int, cut: int | None = None, peak: float = 1.0) -> float:
    """A `factor` at iteration i: (1 - i / n)^power (Chen et al., DeepLab), or steps down, with linear warm-up.

    With `cut` it falls twice, the second time from `peak` at iteration `cut` on.
    """
    start, length, top = 0, iterations if cut is None else cut, 1.0
    if cut is not None and i >= cut:
        start, length, top = cut, iterations - cut, peak
    warmup = settings.warmup if isinstance(settings.warmup, int) else settings.warmup * iterations
    ramp = min(1.0, (i + 1) / warmup) if warmup else 1.0
    done = (i - start) / max(length, 1)
    steps = settings.gamma ** sum(done >= share for share in settings.milestones)
    return top * ramp * steps * max(0.0, 1 - done) ** settings.power


def keep_above(groups: list[dict[str, Any]], settings: TrainingSettings, step: int, least: float) -> None:
    """Give groups of parameters a `factor` with which no rate of a step falls below `least`."""
    for group in groups:
        group["factor"] = partial(at_least, settings, settings.rate(step) * group.get("lr_scale", 1.0), least)


def at_least(settings: TrainingSettings, rate: float, least: float, iterations: int, i: int) -> float:
    """A group's `factor` on its `rate`: that of the settings, but no rate falls below `least`."""
    return max(decay(settings, iterations, i), least / rate) if rate else 1.0


def halfway(iterations: int, i: int) -> float:
    """A group's `factor`: a tenth of the rate from half of the iterations on (Mallya et al., ECCV 2018, section 4)."""
    return 1.0 if i < iterations / 2 else 0.1
