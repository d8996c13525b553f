"""EWF, endpoints weight fusion (Xiao, Zhang, Feng, Liu, van de Weijer, Cheng, CVPR 2023)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from densecl.losses.reduction import widen


def share(n_new: int, n_old: int) -> float:
    """The current network's share: sqrt(new outputs / all outputs); `n_old` counts the background."""
    return math.sqrt(n_new / (n_new + n_old))


def fuse(previous: Mapping[str, Tensor], current: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """State dict (1 - share) previous + share current, with the names of `current`.

    Integers, and tensors that `previous` lacks (new heads), are those of `current`. BatchNorm statistics are fused too.

    Raises:
        ValueError: a tensor has another shape in `previous`.
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
