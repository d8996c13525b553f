"""Optimisers and the learning rate per iteration, restarted each step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from densecl.settings.recipe import TrainingSettings

Factor = Callable[[int, int], float]


def poly(iterations: int, power: float, warmup: int) -> Callable[[int], float]:
    """Iteration -> factor of the learning rate: (1 - i / n)^power (Chen et al., DeepLab), with linear warm-up."""

    def factor(i: int) -> float:
        return _ramp(i, warmup) * max(0.0, 1 - i / iterations) ** power

    return factor


def _ramp(i: int, warmup: int) -> float:
    return min(1.0, (i + 1) / warmup) if warmup else 1.0


def make_optimizer(groups: list[dict[str, Any]], settings: TrainingSettings, step: int) -> torch.optim.Optimizer:
    """The optimiser of a step; groups may carry their own `lr` (absolute), `lr_scale` and `weight_decay`."""
    rate = settings.rate(step)
    groups = [{**group, "lr": group.get("lr", rate * group.pop("lr_scale", 1.0))} for group in map(dict, groups)]
    # fused kernels update all parameters in one call: a third of the time of a small network's iteration otherwise
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=settings.weight_decay, fused=True)
    momentum, decay = settings.momentum, settings.weight_decay
    optimizer = torch.optim.SGD(groups, rate, momentum, nesterov=momentum > 0, weight_decay=decay, fused=True)
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
    common = poly(max(iterations, 1), settings.power, settings.warmup)

    own = [common if f is None else (lambda i, f=f: f(iterations, i)) for f in factors]
    return LambdaLR(optimizer, own or common)


def two_parts(settings: TrainingSettings, iterations: int, i: int, cut: int, peak: float = 1.0) -> float:
    """A `factor` at iteration i: polynomial decay twice, the second from `peak` at iteration `cut` on.

    The settings' warm-up is in the first part.
    """
    start, length, top = (0, cut, 1.0) if i < cut else (cut, iterations - cut, peak)
    return top * _ramp(i, settings.warmup) * max(0.0, 1 - (i - start) / max(length, 1)) ** settings.power


def halfway(iterations: int, i: int) -> float:
    """A group's `factor`: a tenth of the rate from half of the iterations on (Mallya et al., ECCV 2018, section 4)."""
    return 1.0 if i < iterations / 2 else 0.1
