"""Uncertainty of a teacher, its medians, and pseudo-labels below them (PLOP: Douillard et al., CVPR 2021)."""

import math
from typing import Literal

import torch
from torch import Tensor

from densecl.losses.reduction import widen

Form = Literal["exact", "published"]


def uncertainty(teacher_logits: Tensor, *, n_classes: int, form: Form = "exact") -> Tensor:
    """Normalised entropy of the teacher at each pixel, (B, H, W); 0 for a teacher of one output.

    exact: entropy / ln C_old, in 0..1. published: mean over classes in place of the sum, and divided by
    ln(n_classes) once more, so at most 1 / (C_old ln n_classes). `teacher_logits` (B, C_old, H, W) are a constant;
    `n_classes` counts the outputs of the current network.
    """
    p = widen(teacher_logits.detach()).softmax(1)
    n_old = p.shape[1]
    if n_old == 1:
        return torch.zeros_like(p[:, 0])
    if form == "exact":
        return torch.special.entr(p).sum(1) / math.log(n_old)
    return -(p * (p + 1e-8).log()).mean(1) / (math.log(n_old + 1e-8) * math.log(n_classes))


def medians(histogram: Tensor, *, floor: float = 0.001, form: Form = "exact") -> Tensor:
    """Median uncertainty of each class, at least `floor`; a class without pixels gets `floor`.

    exact: in the first bin with half <= cumulated count, linear inside. published: bin indices are cumulated in place
    of counts, r_k = k (k - 1) / 2; the bin is the first with r_k <= half <= r_k + count, else the last with r behind
    it. An empty bin gives an infinite value there (all pixels accepted) or NaN (none). `histogram` (C, bins) counts
    uncertainties over [0, 1]; the medians are (C,) float64.
    """
    counts = histogram.double()
    bins = counts.shape[1]
    half = counts.sum(1, keepdim=True) / 2
    k = torch.arange(bins, device=counts.device)
    if form == "exact":
        below = counts.cumsum(1) - counts
        reached = half <= below + counts
    else:
        below = (k * (k - 1) / 2).to(counts).expand_as(counts)
        reached = (below <= half) & (half <= below + counts)
    none = ~reached.any(1, keepdim=True)
    first = reached.int().argmax(1, keepdim=True).masked_fill(none, bins - 1)
    start = below.gather(1, first).masked_fill(none, bins * (bins - 1) / 2)
    median = (first + (half - start) / counts.gather(1, first)) / bins
    median = torch.where(half > 0, median, floor)
    return median.squeeze(1).clamp(min=floor)  # NaN stays


def pseudo_labels(
    target: Tensor, teacher_logits: Tensor, cut: Tensor, *, n_old: int, n_classes: int, form: Form = "exact"
) -> tuple[Tensor, Tensor]:
    """Labels in which the teacher, where it is certain, names what the background hides.

    A pixel with a label below `n_old` gets the teacher's class c if its uncertainty is below cut[c], else void (255).
    Labels of new classes and void stay. Returns new labels (B, H, W), and (B,) the share of each image's background
    that was accepted. `cut`, at least (C_old,), is the largest uncertainty of each class, itself excluded.
    """
    label = teacher_logits.detach().max(1).indices
    doubt = uncertainty(teacher_logits, n_classes=n_classes, form=form)
    background = target < n_old
    accepted = background & (doubt < cut.to(doubt.device)[label])
    labels = torch.where(background, torch.where(accepted, label, 255), target)
    counts = [pixels.sum((1, 2)).to(doubt.dtype) for pixels in (accepted, background)]
    return labels, counts[0] / (counts[1] + 1e-6)
