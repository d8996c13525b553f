"""Rank of the true class among the outputs of a classifier."""

import torch
from torch import Tensor


def rank_of(scores: Tensor, labels: Tensor) -> Tensor:
    """(B,) int64: how many classes are placed before the true one, of scores (B, C) and labels (B,).

    Of equal scores the class of the lower number comes first; a score that is no number comes before all others.
    """
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    before = (scores > own) | ((scores == own) & earlier) | scores.isnan() | own.isnan()
    return before.scatter(1, labels[:, None], False).sum(1)
