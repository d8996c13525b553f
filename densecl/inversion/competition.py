"""Disagreement of two networks on an image: the competition of Adaptive DeepInversion."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 3.0
LEGACY_CLAMP = (0.01, 0.99)


def jensen_shannon(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Jensen-Shannon divergence of the logits (B, C, ...) of two networks, (B,) (Yin et al., CVPR 2020, eq. 7).

    JS = KL(P | M) / 2 + KL(Q | M) / 2 with M = (P + Q) / 2, in nats (0 to log 2), of the softmax over classes of
    logits / temperature; the mean over places. It is computed from logarithms: nothing is clamped, and the gradient
    stays where a probability vanishes.
    """
    p, q = ((z.float() / temperature).log_softmax(1) for z in (first, second))
    middle = torch.logaddexp(p, q) - math.log(2)
    divergence = 0.5 * (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(1)  # (B, ...)
    return divergence.flatten(1).mean(1) if divergence.ndim > 1 else divergence


def legacy_divergence(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """The form of the published DeepInversion code, for comparison; shapes as `jensen_shannon`, values in 0..1.

    KL(M | P) / 2 + KL(M | Q) / 2 of probabilities clamped to 0.01..0.99 and not normalised again; the mean over images
    and places is clamped to 0..1 and stands for every image. It reaches 1.6 where the networks disagree, is cut to 1
    there, and has no gradient any more.
    """
    p, q = ((z.float() / temperature).softmax(1) for z in (first, second))
    middle = (0.5 * (p + q)).clamp(*LEGACY_CLAMP)
    p, q = p.clamp(*LEGACY_CLAMP), q.clamp(*LEGACY_CLAMP)
    terms = [F.kl_div(x.log(), middle, reduction="none").sum(1) for x in (p, q)]  # KL(M | P), KL(M | Q)
    return (0.5 * (terms[0] + terms[1])).mean().clamp(0, 1).expand(len(first))
