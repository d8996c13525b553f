"""How much two networks disagree on an image: the competition of Adaptive DeepInversion."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 3.0
LEGACY_CLAMP = (0.01, 0.99)


def jensen_shannon(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Jensen-Shannon divergence of two maps of logits (Yin et al., CVPR 2020, eq. 7), in nats: 0 to log 2.

    JS = KL(P | M) / 2 + KL(Q | M) / 2 with M = (P + Q) / 2, of the softmax over classes of logits / temperature. It is
    computed from logarithms, so it neither clamps nor loses its gradient where a probability vanishes.

    Args:
        first: (B, C, ...) logits.
        second: of the other network, over the same classes.
        temperature: that softens both.

    Returns:
        (B,): mean over places.
    """
    p, q = ((z.float() / temperature).log_softmax(1) for z in (first, second))
    middle = torch.logaddexp(p, q) - math.log(2)
    divergence = 0.5 * (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(1)  # (B, ...)
    return divergence.flatten(1).mean(1) if divergence.ndim > 1 else divergence


def legacy_divergence(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """What the published DeepInversion code computes in its place, for comparison.

    KL(M | P) / 2 + KL(M | Q) / 2 of probabilities clamped to 0.01..0.99 and not normalised again, then clamped to 0..1.
    It reaches 1.6 where the networks disagree, is cut to 1 there, and has no gradient any more.

    Args:
        first: (B, C, ...) logits.
        second: of the other network, over the same classes.
        temperature: that softens both.

    Returns:
        (B,): mean over places, each in 0..1.
    """
    p, q = ((z.float() / temperature).softmax(1) for z in (first, second))
    middle = (0.5 * (p + q)).clamp(*LEGACY_CLAMP)
    p, q = p.clamp(*LEGACY_CLAMP), q.clamp(*LEGACY_CLAMP)
    terms = [F.kl_div(x.log(), middle, reduction="none").sum(1) for x in (p, q)]  # KL(M | P), KL(M | Q)
    divergence = (0.5 * (terms[0] + terms[1])).clamp(0, 1)
    return divergence.flatten(1).mean(1) if divergence.ndim > 1 else divergence
