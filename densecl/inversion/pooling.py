"""From maps of scores to one score a class: log-sum-exp with a lower-bounded sharpness."""

import math

import torch
from torch import Tensor


def lse_lba_pool(scores: Tensor, r0: float = 0.0, beta: float | Tensor = 0.0) -> Tensor:
    """LSE-LBA pooling (Yao et al., 2018; eq. 5 of Di Salvo et al., 2021): a smooth mean of the larger scores.

    With r = r0 + exp(beta), p = (1 / r) log(1 / (h w) sum exp(r s)) = (logsumexp(r s) - log(h w)) / r. It lies between
    mean and maximum, p >= max - log(h w) / r, and grows with r from one to the other; its gradient is softmax(r s).

    Eq. 5 as Di Salvo et al. print it is a misprint: the bracket stands around r0 + exp(beta) s, so r0 multiplies no
    score, and a map of the constant c gives (r0 + exp(beta) c) / r instead of c (0.936 for c = 0.3, r0 = 10, beta = 0).

    Args:
        scores: (B, C, H, W), any floating type; computed in at least float32.
        r0: lower bound of the sharpness, at least 0.
        beta: a number, a scalar tensor or one value a class (C,); may be learnt.

    Returns:
        (B, C).
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    r = r0 + (beta.to(scores.dtype).exp() if isinstance(beta, Tensor) else math.exp(beta))
    flat = scores.flatten(2)  # (B, C, H W)
    # Less the maximum, by which the function shifts: at scores of 1e4 a float32 logarithm would be too coarse to
    # subtract from, and the gradient would no longer sum to 1.
    top = flat.detach().amax(2, keepdim=True)
    sharpened = (flat - top) * (r.reshape(1, -1, 1) if isinstance(r, Tensor) else r)
    return top.squeeze(2) + (sharpened.logsumexp(2) - math.log(flat.shape[2])) / r
