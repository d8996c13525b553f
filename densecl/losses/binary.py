"""Losses of sigmoid outputs, one decision a class: DKD (Baek et al., NeurIPS 2022), SSUL, STAR."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import pixel_weights, widen

Void = Literal["ignored", "negative"]


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
    label = torch.arange(first, first + logits.shape[1], device=target.device).view(1, -1, *[1] * (target.dim() - 1))
    own = ((target.unsqueeze(1) == label) & labelled.unsqueeze(1)).to(logits.dtype)  # (B, C, *)
    losses = F.binary_cross_entropy_with_logits(logits, own, reduction="none", pos_weight=logits.new_tensor(positive))
    counted = labelled if void == "ignored" else torch.ones_like(labelled)
    return (losses.sum(1) * pixel_weights(weight, counted, logits.dtype)).sum()


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
    old = widen(logits[:, :n_old])
    if old.shape != teacher_logits.shape:
        raise ValueError(f"teacher {tuple(teacher_logits.shape)} and network {tuple(logits.shape)} differ in shape")
    wanted = widen(teacher_logits.detach()).to(old.dtype).sigmoid()
    losses = F.binary_cross_entropy_with_logits(old, wanted, reduction="none").sum(1)  # (B, *)
    return (losses * pixel_weights(weight, torch.ones_like(losses, dtype=torch.bool), old.dtype)).sum()
