"""EWF, endpoints weight fusion (Xiao, Zhang, Feng, Liu, van de Weijer, Cheng, CVPR 2023)."""

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from densecl.losses.reduction import widen
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.scenario import Experience


class EWF(Plugin):
    """After each step the network becomes a weighted mean of itself and of the one before.

    Heads of earlier steps are fixed while a step trains; new heads are not fused.
    """

    first_step = "shared"
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None  # share of the network just trained; None: see `share`

    def before_step(self, strategy: Strategy, experience: Experience) -> None:
        """Fix the heads of earlier steps, background's too."""
        if strategy.step > 0 and experience.new_classes:
            for head in strategy.network.heads.earlier():
                head.requires_grad_(False)

    def after_step(self, strategy: Strategy, experience: Experience) -> None:
        """Fuse weights and statistics with those of the teacher."""
        if strategy.step > 0 and experience.new_classes:
            alpha = share(len(experience.new_classes), strategy.n_old) if self.alpha is None else self.alpha
            previous = strategy.teacher.state_dict()
            strategy.network.load_state_dict(fuse(previous, strategy.network.state_dict(), alpha))

    def stored_bytes(self, strategy: Strategy) -> int:
        """The network of the step before, where no method keeps it anyway."""
        if strategy.loop.needs_teacher:
            return 0
        return sum(p.numel() * p.element_size() for p in strategy.network.parameters())


def share(n_new: int, n_old: int) -> float:
    """The current network's share: sqrt(new outputs / all outputs); `n_old` counts the background."""
    return math.sqrt(n_new / (n_new + n_old))


def fuse(previous: Mapping[str, Tensor], current: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """State dict (1 - share) previous + share current, with the names of `current`.

    Integers, and tensors that `previous` lacks (new heads), are those of `current`. BatchNorm statistics are fused too.
    """
    fused = {}
    for name, value in current.items():
        value = value.detach()
        if name not in previous or not value.is_floating_point():
            fused[name] = value.clone()
            continue
        if previous[name].shape != value.shape:
            raise ValueError(f"'{name}' was {tuple(previous[name].shape)} and is {tuple(value.shape)} now")
        start = previous[name].detach().to(value)
        fused[name] = torch.lerp(widen(start), widen(value), share).to(value.dtype)
    return fused
