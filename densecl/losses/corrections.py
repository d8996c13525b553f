"""Losses of a correction of background, and of features on background: BARM (Zhang and Gao, ECCV 2024)."""

import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import pair, widen


def correction_losses(correction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Triplet and positive loss of a step's correction b; each 0 where there is no place for it.

    Mean of max(1 - 2 sigmoid(b), 0) over background (label 0), and of -log(1 - sigmoid(b)) over labelled classes.

    Args:
        correction: (B, h, w), any floating type; computed in at least float32.
        target: (B, H, W) int64, brought to the correction's size by nearest pixels.
    """
    b, label = widen(correction), nearest_labels(target, correction)
    places = [label == 0, (label > 0) & (label != 255)]
    losses = [(1 - 2 * b.sigmoid()).relu(), F.softplus(b)]
    triplet, positive = ((x * m).sum() / m.sum().clamp(min=1) for x, m in zip(losses, places, strict=True))
    return triplet, positive


def masked_distance(features: Tensor, teacher_features: Tensor, target: Tensor) -> Tensor:
    """Squared error of features (B, D, h, w) on background (label 0), a mean over all elements, its zeros too.

    `target` (B, H, W) is brought to their size by nearest pixels; the teacher's features are a constant.
    """
    features, teacher = pair(features, teacher_features, "features", "teacher's")
    background = (nearest_labels(target, features) == 0).unsqueeze(1)
    return ((features - teacher) * background).square().sum() / max(1, features.numel())


def nearest_labels(target: Tensor, like: Tensor) -> Tensor:
    """(B, h, w) labels at the size of a map (..., h, w): the pixel at the corner of each place, as torch takes it."""
    if target.shape[1:] == like.shape[-2:]:
        return target
    return F.interpolate(target[:, None].double(), like.shape[-2:], mode="nearest")[:, 0].to(target.dtype)
