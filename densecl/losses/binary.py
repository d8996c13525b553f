"""Losses of sigmoid outputs, one decision a class: DKD (Baek et al., NeurIPS 2022), SSUL, STAR.

The gradients are analytic and made in the forward pass, block by block: see `densecl.losses.reduction`.
"""

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import blocks, pixel_weights, widen, with_gradient

Void = Literal["ignored", "negative"]
BLOCK_ELEMENTS = 1 << 19  # 2 MiB of float32: a block has several temporaries of its size
JOINED_CHANNELS = 64  # a product of so many numbers of at most 2 stays in float32's range


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    first: int = 0,
    positive: float = 1.0,
    void: Void = "ignored",
    weight: Tensor | None = None,
    ignore_index: int = 255,
) -> Tensor:
    """Binary cross-entropy of each channel, summed over channels, mean over pixels.

    Channel k is label `first` + k; a label of no channel is negative in all.

    Args:
        logits: (B, C, *), any floating type; computed in at least float32.
        target: (B, *) int64; never changed.
        first: label of channel 0.
        positive: weight of the term of a pixel in its own channel.
        void: "ignored": the mean is over labelled pixels; "negative": over all, void ones negative in every channel.
        weight: None, (B,) per sample or (B, *) per pixel loss weights (constants): sum(w l) / sum(w).
        ignore_index: label of void pixels.
    """
    if void not in ("ignored", "negative"):
        raise ValueError(f"void is '{void}', not 'ignored' or 'negative'")
    logits, labelled = widen(logits), target != ignore_index
    w = pixel_weights(weight, labelled if void == "ignored" else torch.ones_like(labelled), logits.dtype)
    channel = target - first
    own = labelled & (channel >= 0) & (channel < logits.shape[1])
    index = channel.where(own, 0)
    if torch.compiler.is_compiling():  # of the formula a compiler makes one pass
        channels = torch.arange(logits.shape[1], device=target.device).view(1, -1, *[1] * (target.dim() - 1))
        positives = ((index.unsqueeze(1) == channels) & own.unsqueeze(1)).to(logits.dtype)
        factor = logits.new_tensor(positive)
        losses = F.binary_cross_entropy_with_logits(logits, positives, reduction="none", pos_weight=factor)
        return (losses.sum(1) * w).sum()
    return with_gradient(partial(_loss, positive), _rows(logits), *(_flat(x) for x in (index, own, w)))


def binary_distillation(logits: Tensor, teacher_logits: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of the first C_old channels with the teacher's sigmoids, summed over channels.

    The mean is over all pixels; at equal logits the gradient is 0, the value the teacher's entropy.

    Args:
        logits: (B, C, *), any floating type; computed in at least float32.
        teacher_logits: (B, C_old, *) with C_old <= C; a constant.
        weight: None, (B,) per sample or (B, *) per pixel loss weights (constants): sum(w l) / sum(w).
    """
    n_old = teacher_logits.shape[1]
    if n_old > logits.shape[1]:
        raise ValueError(f"the teacher has {n_old} outputs, the network {logits.shape[1]}")
    if (len(logits), *logits.shape[2:]) != (len(teacher_logits), *teacher_logits.shape[2:]):
        raise ValueError(f"teacher {tuple(teacher_logits.shape)} and network {tuple(logits.shape)} differ in shape")
    logits, teacher = widen(logits), teacher_logits.detach()
    valid = torch.ones((len(logits), *logits.shape[2:]), dtype=torch.bool, device=logits.device)
    w = pixel_weights(weight, valid, logits.dtype)
    if torch.compiler.is_compiling():
        wanted = widen(teacher).to(logits.dtype).sigmoid()
        losses = F.binary_cross_entropy_with_logits(logits[:, :n_old], wanted, reduction="none")
        return (losses.sum(1) * w).sum()
    return with_gradient(_distance, _rows(logits), _rows(teacher), _flat(w))


def _loss(
    positive: float, logits: Tensor, index: Tensor, own: Tensor, weight: Tensor, gradient: Tensor | None
) -> Tensor:
    """The cross-entropy, and its gradient; `index` is the channel of a pixel where it has an `own` one."""
    total = logits.new_zeros(())
    if not logits.shape[1]:
        return total
    for block in blocks(logits, BLOCK_ELEMENTS):
        z, pixels = logits[block], (block[0], block[2])
        i, mine, w = index[pixels].unsqueeze(1), own[pixels].unsqueeze(1), weight[pixels]
        y = z.scatter(1, i, torch.where(mine, -1, 1) * z.gather(1, i))  # every channel's loss is softplus(y)
        s = torch.sigmoid(y, out=None if gradient is None else gradient[block])
        losses = _sum_of_softplus(y, s)
        if positive != 1:
            losses += torch.where(mine, (positive - 1) * F.softplus(y.gather(1, i), threshold=math.inf), 0).squeeze(1)
        total += (losses * w).sum()
        if gradient is not None:
            s.scatter_(1, i, torch.where(mine, -positive, 1) * s.gather(1, i)).mul_(w.unsqueeze(1))
    return total


def _distance(logits: Tensor, teacher: Tensor, weight: Tensor, gradient: Tensor | None) -> Tensor:
    """The distillation, and its gradient: softplus(z) - q z and sigmoid(z) - q, with q = sigmoid(teacher)."""
    total, n_old = logits.new_zeros(()), teacher.shape[1]
    if gradient is not None:
        gradient[:, n_old:] = 0
    if not n_old:
        return total
    for block in blocks(logits, BLOCK_ELEMENTS):
        z, w = logits[block][:, :n_old], weight[block[0], block[2]]
        q = widen(teacher[block]).to(z.dtype).sigmoid()
        s = torch.sigmoid(z, out=None if gradient is None else gradient[block][:, :n_old])
        total += (_sum_of_softplus(z, s, q) * w).sum()
        if gradient is not None:
            s.sub_(q).mul_(w.unsqueeze(1))
    return total


def _sum_of_softplus(y: Tensor, s: Tensor, q: Tensor | None = None) -> Tensor:
    """Sum over channels of softplus(y) - q y, given s = sigmoid(y); maps (b, C, h, W), the sum (b, h, W).

    softplus(y) = max(y, 0) + log(1 + e) with e = exp(-|y|), and one logarithm a pixel does for many channels: that of
    the product of all 1 + e, less 1 while it is made, so that small e lose no digits.
    """
    linear = y.clamp(min=0)
    losses = (linear if q is None else linear.addcmul_(q, y, value=-1)).sum(1)
    e = torch.neg(s, out=linear).add_(1)
    e = torch.minimum(e, s, out=e)  # sigmoid(-|y|)
    e.div_(1 - e)
    for part in e.split(JOINED_CHANNELS, 1):
        n = part.shape[1]
        while n > 1:  # (1 + a) (1 + b) - 1 of the first and the last half
            a, b = part[:, : n // 2], part[:, n - n // 2 : n]
            a.addcmul_(a, b).add_(b)
            n -= n // 2
        losses += part[:, 0].log1p()
    return losses


def _rows(x: Tensor) -> Tensor:
    """(B, C, *) as (B, C, pixels, 1)."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]), 1)


def _flat(x: Tensor) -> Tensor:
    """(B, *) as (B, pixels, 1)."""
    return x.reshape(len(x), math.prod(x.shape[1:]), 1)
