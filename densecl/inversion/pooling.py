"""Pooling of maps of scores to one score for each class: log-sum-exp with a lower-bounded sharpness."""

import math

import torch
from torch import Tensor


def lse_lba_pool(scores: Tensor, r0: float = 0.0, beta: float | Tensor = 0.0) -> Tensor:
    """LSE-LBA pooling of scores (B, C, H, W) to (B, C) (Yao et al., 2018; eq. 5 of Di Salvo et al., 2021).

    With r = r0 + exp(beta), p = (1 / r) log(1 / (h w) sum exp(r s)) = (logsumexp(r s) - log(h w)) / r. It lies between
    mean and maximum, p >= max - log(h w) / r, and grows with r from one to the other; its gradient is softmax(r s).

    Eq. 5 as Di Salvo et al. print it is a misprint: the bracket stands around r0 + exp(beta) s, so r0 multiplies no
    score, and a map of the constant c gives (r0 + exp(beta) c) / r instead of c (0.936 for c = 0.3, r0 = 10, beta = 0).

    `r0` >= 0 bounds the sharpness; `beta` is a number, a scalar tensor or one value for each class (C,), and may be
    learnt. Computed in at least float32.
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    r = r0 + (beta.to(scores.dtype).exp() if isinstance(beta, Tensor) else math.exp(beta))
    flat = scores.flatten(2)  # (B, C, H W)
    # Less the maximum, by which the function shifts: at scores of 1e4 a float32 logarithm would be too coarse to
    # subtract from, and the gradient would no longer sum to 1.
    top = flat.detach().amax(2, keepdim=True)
    sharpened = (flat - top) * (r.reshape(1, -1, 1) if isinstance(r, Tensor) else r)
    return top.squeeze(2) + (sharpened.logsumexp(2) - math.log(flat.shape[2])) / r
