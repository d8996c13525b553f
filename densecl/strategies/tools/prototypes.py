"""Directions, lengths and spread of the features of classes: what prototypes are made of."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import widen


def at_places(labels: Tensor, like: Tensor) -> Tensor:
    """(B, h, w) labels of the pixels at the centres of the places of a map (..., h, w); `labels` are (B, H, W)."""
    if labels.shape[1:] == like.shape[-2:]:
        return labels
    return F.interpolate(labels[:, None].double(), like.shape[-2:], mode="nearest-exact")[:, 0].to(labels.dtype)


def class_sums(values: Tensor, labels: Tensor, *, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Sums of values over the places of each class, (K, D), and the numbers of those places, (K,).

    Args:
        values: (B, D, h, w) float32 or float64.
        labels: (B, h, w) int64, one for each place.
        classes: the K labels that are looked for.
    """
    wanted = torch.as_tensor(classes, device=labels.device, dtype=labels.dtype).view(1, -1, 1)
    own = (labels.flatten(1).unsqueeze(1) == wanted).to(values.dtype)  # (B, K, h w)
    with torch.autocast(values.device.type, enabled=False):
        return torch.einsum("bkp,bdp->kd", own, values.flatten(2)), own.sum((0, 2))


def moments(features: Tensor, labels: Tensor, *, classes: Sequence[int]) -> Tensor:
    """(K, 2 D + 3) float64 sums over the places of each class, which add up over batches and processes.

    Of unit features and of their squares (D each), of lengths and of their squares, and the number of places.
    """
    f = widen(features).double()
    length = torch.linalg.vector_norm(f, dim=1, keepdim=True)
    direction = F.normalize(f, dim=1)
    sums, counts = class_sums(
        torch.cat([direction, direction.square(), length, length.square()], 1), labels, classes=classes
    )
    return torch.cat([sums, counts.unsqueeze(1)], 1)


def directions_of(sums: Tensor) -> Tensor:
    """(K, D) unit prototypes from `moments`; 0 for a class without places."""
    return F.normalize(sums[:, : _width(sums)], dim=1)


def lengths_of(sums: Tensor) -> Tensor:
    """(2, K) mean and standard deviation (n - 1) of the lengths from `moments`; 0 where there are too few places."""
    total, squares, n = sums[:, -3:].unbind(1)
    mean = total / n.clamp(min=1)
    variance = (squares - total * mean).clamp(min=0) / (n - 1).clamp(min=1)
    return torch.stack([mean, torch.where(n > 1, variance, 0).sqrt()])


def spread_of(sums: Tensor, prototypes: Tensor) -> Tensor:
    """(K, D) root mean square, per dimension, of unit features less their class's prototype, from `moments`."""
    width, n = _width(sums), sums[:, -1:].clamp(min=1)
    mean, squares, p = sums[:, :width] / n, sums[:, width : 2 * width] / n, prototypes.to(sums.dtype)
    there = sums[:, -1:] > 0
    return torch.where(there, squares - 2 * p * mean + p.square(), 0).clamp(min=0).sqrt()


def prototypes(features: Tensor, labels: Tensor, *, classes: Sequence[int]) -> Tensor:
    """(K, D) unit vectors: the mean direction of the features (B, D, h, w) of each class; `labels` are (B, h, w)."""
    return directions_of(moments(features, labels, classes=classes)).to(widen(features).dtype)


def lengths(features: Tensor, labels: Tensor, *, classes: Sequence[int]) -> Tensor:
    """(2, K) mean and standard deviation (n - 1) of the features' lengths; arguments as `prototypes`."""
    return lengths_of(moments(features, labels, classes=classes)).to(widen(features).dtype)


def spread(features: Tensor, labels: Tensor, prototypes: Tensor, *, classes: Sequence[int]) -> Tensor:
    """(K, D) root mean square of unit features less a prototype; row i of `prototypes` belongs to classes[i]."""
    return spread_of(moments(features, labels, classes=classes), prototypes).to(widen(features).dtype)


def agreed(logits: Tensor, others: Tensor, *, margin: float) -> Tensor:
    """(B, h, w) labels of sigmoid logits (B, C, h, w) where both give one class, by that margin before the next; or 0.

    A class of channel k is label k + 1; the others (B, C', h, w) may have fewer classes.
    """
    found = []
    for z in (logits, others):
        padded = torch.cat([torch.zeros_like(z[:, :1]), z.sigmoid()], 1)  # without a second class the margin is to 0
        best, label = padded.topk(2, dim=1)
        found.append(torch.where(best[:, 0] - best[:, 1] > margin, label[:, 0], 0))
    return torch.where(found[0] == found[1], found[0], 0)


def _width(sums: Tensor) -> int:
    return (sums.shape[1] - 3) // 2
