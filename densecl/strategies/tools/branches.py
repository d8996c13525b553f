"""Convolutions of two branches that become one after each step (RCIL: Zhang et al., CVPR 2022)."""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.traced import followed_by_norm

Branch = Sequence[nn.Module]  # a Conv2d and its BatchNorm2d


class Doubled(nn.Module):
    """A convolution with BatchNorm, twice: half of each, or in training of each channel the drawn shares.

    Between steps (`close`) all is in the first branch, which does not train any more.
    """

    shares: Tensor  # (2,) of the branches in evaluation
    drawn: Tensor  # (2, C) in training

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d):
        super().__init__()
        pair = nn.Sequential(convolution, norm)
        self.branches = nn.ModuleList([pair, copy.deepcopy(pair)])
        self.channels = convolution.out_channels
        self.register_buffer("shares", torch.full((2,), 0.5, device=convolution.weight.device))
        self.register_buffer("drawn", torch.full((2, self.channels), 0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Both branches in training; in evaluation the one convolution that equals them."""
        first, second = cast(Sequence[nn.Sequential], self.branches)
        if self.training:
            share = self.drawn.view(2, 1, -1, 1, 1)
            return share[0] * first(x) + share[1] * second(x)
        folded = [fold(cast(Branch, branch)) for branch in (first, second)]
        weight, bias = (self.shares[0] * one + self.shares[1] * other for one, other in zip(*folded, strict=True))
        return cast(nn.Conv2d, first[0])._conv_forward(x, weight, bias)

    def open(self) -> None:
        """Let both branches count, half each."""
        self.shares.fill_(0.5)

    @torch.no_grad()
    def close(self) -> None:
        """Merge both branches into the first, which has no gradient from now on and an identity for its BatchNorm."""
        convolution, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(self.branches[0]))  # type: ignore[arg-type]
        weight, bias = merge(cast(Any, self.branches))
        convolution.weight.copy_(weight)
        if convolution.bias is not None:
            convolution.bias.zero_()
        norm.reset_running_stats()
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        norm.bias.copy_(bias)
        self.branches[0].requires_grad_(False)
        self.shares.copy_(torch.tensor([1.0, 0.0]))


def fold(branch: Branch) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that a convolution with BatchNorm is in evaluation, in its precision."""
    convolution, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(branch))
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
    return convolution.weight * scale.view(-1, 1, 1, 1), norm.bias + scale * shift


def merge(branches: Sequence[Branch]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that is the mean of branches in evaluation.

    k = 1/n sum_i k_i g_i / sqrt(v_i + eps), b = 1/n sum_i [beta_i + g_i (b_i - m_i) / sqrt(v_i + eps)].

    Args:
        branches: (Conv2d, BatchNorm2d) of equal shape.
    """
    weights, biases = zip(*map(fold, branches), strict=True)
    return torch.stack(weights).mean(0), torch.stack(biases).mean(0)


def branch_shares(numbers: Tensor) -> Tensor:
    """(2, C) shares of the kept and of the free branch from numbers (C,) uniform in 0..1.

    Below 0.33 the first alone, below 0.66 the second alone, else half of each.
    """
    first = torch.where(numbers < 0.33, 1.0, torch.where(numbers < 0.66, 0.0, 0.5))
    return torch.stack([first, 1 - first])


def double(backbone: nn.Module) -> list[Doubled]:
    """Double each 3x3 convolution that a BatchNorm follows, and each branch of ASPP; refused where there is none."""
    made = []
    pairs = [
        (convolution, norm)
        for convolution, norm in followed_by_norm(backbone)
        if cast(nn.Conv2d, backbone.get_submodule(convolution)).kernel_size == (3, 3)
        or convolution.startswith("pyramid.branches.")
    ]
    if not any(name.startswith("encoder.") or not hasattr(backbone, "encoder") for name, _ in pairs):
        raise SettingError(
            f"the encoder of {type(backbone).__name__} has no 3x3 convolution with a BatchNorm behind it to be doubled",
            "use a backbone with BatchNorm, such as bisenet, deeplabv3 or fcn with encoder=resnet50",
        )
    for convolution, norm in pairs:
        doubled = Doubled(*(cast(Any, backbone.get_submodule(name)) for name in (convolution, norm)))
        for name, replacement in ((convolution, doubled), (norm, nn.Identity())):
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, replacement)
        made.append(doubled)
    return made
