"""Distances of segmentation, depth and normals to a teacher's: HAD (Zhang et al., CVPR 2026)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import pair, widen

Form = Literal["exact", "published"]
TINY = torch.finfo(torch.float32).tiny


def segmentation(log_probabilities: Tensor, labels: Tensor, *, above: float = 0.9) -> Tensor:
    """Half of: the classes' means by `class_balanced`, and the mean over all pixels of the loss where it has an edge.

    Log-probabilities (B, C, H, W) and the teacher's labels (B, H, W); pixels of no class count 0.
    """
    log_probabilities = widen(log_probabilities)
    classes = log_probabilities.shape[1]
    known = (labels >= 0) & (labels < classes)
    chosen = log_probabilities.gather(1, labels.where(known, 0)[:, None])[:, 0]
    losses = torch.where(known, -chosen, 0.0)
    sharp = (losses * edges(losses, above=above)).mean() if losses.numel() else losses.sum()
    return (class_balanced(losses, labels, classes=classes) + sharp) / 2


def class_balanced(losses: Tensor, labels: Tensor, *, classes: int) -> Tensor:
    """Mean over classes of softmax(-g) g, with g the geometric mean of a class's losses (B, H, W) above 0.

    The softmax is a constant. A class without such a pixel has g = 0 and counts.
    """
    losses = widen(losses)
    counted = (losses > 0) & (labels >= 0) & (labels < classes)
    own = labels[counted]
    counts = own.bincount(minlength=classes)
    sums = losses.new_zeros(classes).index_add(0, own, losses[counted].log())
    means = torch.where(counts > 0, (sums / counts.clamp(min=1)).exp(), 0.0)
    return ((-means.detach()).softmax(0) * means).mean()


def edges(losses: Tensor, *, above: float = 0.9) -> Tensor:
    """True where the Sobel gradient of a map (B, H, W) is above a share of its range in the image; zeros lie around it.

    A map whose gradient is the same everywhere has no edge.
    """
    losses = widen(losses.detach())
    kernel = losses.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    slopes = F.conv2d(losses[:, None], torch.stack([kernel, kernel.t()])[:, None], padding=1)
    size = slopes.square().sum(1).sqrt()  # (B, H, W)
    low, high = size.amin((1, 2), keepdim=True), size.amax((1, 2), keepdim=True)
    return (size - low) / (high - low).clamp(min=TINY) > above


def depth(prediction: Tensor, teacher: Tensor, *, bar: float = 0.5, above: float = 0.9, form: Form = "exact") -> Tensor:
    """Half of: the mean |difference| of far and of near pixels, added, and that at edges of the difference.

    Depth (B, 1, H, W); pixels where the teacher's is 0 differ by 0; `bar` parts the predictions. As published, edges of
    each image meet the differences of every image of the batch.
    """
    prediction, teacher = pair(prediction, teacher, "prediction", "teacher")
    losses = (prediction - teacher).abs() * (teacher != 0)
    balanced = sum(_mean(losses, group) for group in _groups(prediction, bar))
    sharp = edges(losses[:, 0], above=above)
    at_edges = losses[:, 0] * sharp if form == "exact" else losses * sharp  # (B, H, W), or (B, B, H, W)
    return (balanced + at_edges.sum() / (at_edges != 0).sum().clamp(min=1)) / 2


def normals(
    prediction: Tensor, teacher: Tensor, *, bar: float = 0.5, above: float = 0.9, form: Form = "exact"
) -> Tensor:
    """Half of: 1 - the mean product of both, of pixels above and below `bar`, added, and 1 - that at edges.

    Unit normals (B, 3, H, W), of which `bar` parts the means over the three components; products are 0 where the
    teacher's components add up to 0. Each of the three terms is 1 where nothing belongs to it. As published, the sum at
    edges is that of all pixels.
    """
    prediction, teacher = pair(prediction, teacher, "prediction", "teacher")
    products = prediction * teacher * (teacher.sum(1, keepdim=True) != 0)
    balanced = 2 - sum(_mean(products, group) for group in _groups(prediction.mean(1, keepdim=True), bar))
    sharp = edges(1 - products.mean(1), above=above)[:, None]
    at_edges = products * sharp
    total = at_edges.sum() if form == "exact" else products.sum()
    count = (at_edges != 0).sum()
    return (balanced + 1 - torch.where(count > 0, total / count.clamp(min=1), 0.0)) / 2


def _groups(values: Tensor, bar: float) -> tuple[Tensor, Tensor]:
    return values > bar, values < bar


def _mean(values: Tensor, group: Tensor) -> Tensor:
    """Mean over the pixels (B, 1, H, W) of a group and all channels; 0 without pixels."""
    return (values * group).sum() / (group.sum() * values.shape[1]).clamp(min=1)
