"""Likeness of masks: zeroed share, simple matching, Cohen's kappa.

Masks are as `binary.masks` returns them: bool, or uint8 with 0, 1, 3 for ternary 0, 1, -1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Masks = Mapping[str, Tensor]


class Similarity(NamedTuple):
    """Agreement of two tasks' masks."""

    matching: float  # share of weights with equal values (simple matching)
    # Cohen's: (matching - chance) / (1 - chance), chance from both masks' own shares. 0 for independent masks, 1 for
    # equal ones; nan where both masks are one and the same constant
    kappa: float


def zeroed(masks: Masks) -> dict[str, float]:
    """Share of weights that a mask sets to 0, by parameter name; nan for a parameter without weights."""
    return {name: _zeros(mask) / mask.numel() if mask.numel() else float("nan") for name, mask in masks.items()}


def zeroed_in_all(masks: Masks) -> float:
    """Share of all weights that are set to 0."""
    return sum(map(_zeros, masks.values())) / sum(mask.numel() for mask in masks.values())


def similarity(one: Masks, other: Masks) -> Similarity:
    """Agreement over all weights of two masks of the same parameters."""
    if list(one) != list(other) or any(one[name].shape != other[name].shape for name in one):
        raise ValueError("the masks are not of the same parameters")
    n = sum(mask.numel() for mask in one.values())
    equal = sum(int((_numbers(mask) == _numbers(other[name])).sum()) for name, mask in one.items())
    a, b = _counts(one), _counts(other)
    chance = sum(a[value] * b[value] for value in a) / n**2
    matching = equal / n
    return Similarity(matching, (matching - chance) / (1 - chance) if chance < 1 else float("nan"))


def all_ones(masks: Masks) -> dict[str, Tensor]:
    """The mask of the task that trained the network; simple matching with it is 1 - zeroed share."""
    return {name: torch.ones_like(mask, dtype=torch.bool) for name, mask in masks.items()}


def _zeros(mask: Tensor) -> int:
    return mask.numel() - int(mask.count_nonzero())


def _counts(masks: Masks) -> dict[int, int]:
    """Occurrences of each value."""
    return {value: sum(int((_numbers(mask) == value).sum()) for mask in masks.values()) for value in (0, 1, 3)}


def _numbers(mask: Tensor) -> Tensor:
    return mask.view(torch.uint8) if mask.dtype == torch.bool else mask
