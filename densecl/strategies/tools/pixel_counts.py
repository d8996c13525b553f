"""Numbers of pixels of classes, from which STAR (Chen et al., NeurIPS 2023) knows what a step's images lack."""

from typing import Literal

import torch
from torch import Tensor

Setting = Literal["overlapped", "disjoint"]  # overlapped: images of earlier steps come again


def fakes_per_iteration(stored: Tensor, predicted: Tensor, *, iterations: int, setting: Setting) -> Tensor:
    """(C_old,) int64: fake features of each old class in an iteration, so that an epoch has what its images lack.

    Args:
        stored: (C_old,) places of each old class when it was learnt.
        predicted: (C_old,) those that the teacher finds in the step's background.
        iterations: of an epoch.
        setting: in "disjoint" the images are others, and what is found there replaces nothing.
    """
    missing = (stored - predicted).clamp(min=0) if setting == "overlapped" else stored
    return (missing / max(1, iterations)).long()


def background_ratio(stored: Tensor, predicted: Tensor, *, n_new: int, setting: Setting) -> Tensor:
    """Number of times that the step's empty background is to count besides itself, (); 0 where there is none of it.

    Both () are places of background: those stored, and those of the step in which the teacher sees nothing.
    """
    there = torch.where(predicted > 0, predicted, torch.inf)
    if setting == "disjoint":
        return stored / there
    ratio = stored * (1 - 0.01 * n_new) / there - 0.5
    return torch.where(predicted > 0, ratio, 0).clamp(min=0)


def pixel_counts(stored: Tensor, predicted: Tensor, own: Tensor, *, n_new: int, setting: Setting) -> Tensor:
    """(1 + C_old + C_new,) places of background and of each class to store after a step.

    Args:
        stored: (1 + C_old,) before the step.
        predicted: (1 + C_old,) in the step's background.
        own: (C_new,) of the step's classes.
        n_new: C_new; one new class is taken for a hundredth of the background in "overlapped".
        setting: in "disjoint" what is found comes on top.
    """
    if setting == "disjoint":
        return torch.cat([stored + predicted, own])
    background = stored[:1] * (1 - 0.01 * n_new) + predicted[:1] / 2
    return torch.cat([background, stored[1:], own])


def rebalance(
    own: Tensor, fakes: Tensor, background: Tensor, *, fake_weight: Tensor | float, background_weight: Tensor | float
) -> Tensor:
    """(own + w_f fakes + w_b background) / (1 + w_f + w_b); a term of weight 0 is not looked at."""
    loss, total = own, torch.ones_like(own)
    for term, given in ((fakes, fake_weight), (background, background_weight)):
        weight = torch.as_tensor(given, dtype=own.dtype, device=own.device)
        loss, total = loss + weight * torch.where(weight > 0, term, 0), total + weight
    return loss / total
