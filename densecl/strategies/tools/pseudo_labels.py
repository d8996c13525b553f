"""Labels that a teacher gives to what a step leaves unlabelled."""

import torch
from torch import Tensor


def fill_in(target: Tensor, probability: Tensor, *, first: int, threshold: float) -> Tensor:
    """Labels in which the teacher's most probable class stands where it is certain and nothing else is known.

    Args:
        target: (B, H, W) int64; labels below `first` say that no class is known, and may be replaced.
        probability: (B, C, H, W) of labels 0, 1, ... for the teacher; a constant.
        first: the first label that is a class: the teacher's word counts from here on.
        threshold: the least probability that counts.
    """
    best, label = probability.detach().max(1)
    sure = (target < first) & (label >= first) & (best >= threshold)
    return torch.where(sure, label, target)
