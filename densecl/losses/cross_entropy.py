"""Cross-entropy of label maps, plain and with the old classes modelled inside the background."""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import Normalise, blocks, pixel_weights, widen, with_gradient


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    normalise: Normalise = "weight",
    ignore_index: int = 255,
) -> Tensor:
    """Softmax cross-entropy, mean over pixels; zero, with zero gradient, when no pixel is valid.

    Args:
        logits: (B, C, H, W), any floating type; computed in at least float32.
        target: (B, H, W) int64, labels 0..C-1 or `ignore_index`; never changed.
        weight: None, (B,) per sample or (B, H, W) per pixel loss weights (constants).
        normalise: "weight": sum(w l) / sum(w) over valid pixels; "pixels": sum(w l) / (B H W), void pixels counted.
        ignore_index: label of void pixels.
    """
    logits = widen(logits)
    w = pixel_weights(weight, target != ignore_index, logits.dtype, normalise)
    return (F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none") * w).sum()


def unbiased_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    n_old: int,
    hidden: Tensor | None = None,
    weight: Tensor | None = None,
    normalise: Normalise = "weight",
    ignore_index: int = 255,
) -> Tensor:
    """Cross-entropy in which a background pixel may be any old class (MiB: Cermelli et al., CVPR 2020, eq. 5-6).

    log p(0) = LSE(z[0:n_old]) - LSE(z) and, for a new class c, log p(c) = z[c] - LSE(z). Labels 1..n_old-1 of hidden
    samples count as background. The gradient is analytic and made in the forward pass: p - onehot(c) at a new class,
    p - softmax(z[0:n_old]) over the old outputs at background.

    `n_old` counts the outputs that existed before this step, background included; 0 or 1 give plain cross-entropy.
    `hidden`, (B,) bool, tells the samples whose old classes hide in the background (None: all); the others (replayed,
    fully labelled) get plain cross-entropy. All other arguments are those of `cross_entropy`.
    """
    if n_old > logits.shape[1]:
        raise ValueError(f"n_old is {n_old}, but the network has {logits.shape[1]} outputs")
    if n_old <= 1:
        return cross_entropy(logits, target, weight=weight, normalise=normalise, ignore_index=ignore_index)
    logits = widen(logits)
    valid = target != ignore_index
    folded = valid & (target < n_old)  # (B, H, W): pixels where an old class may stand behind the label
    if hidden is not None:
        folded &= hidden.view(-1, 1, 1)
    index = torch.where(folded | ~valid, 0, target)
    w = pixel_weights(weight, valid, logits.dtype, normalise)
    if torch.compiler.is_compiling():  # of the formula a compiler makes one pass
        return _formula(n_old, logits, index, folded, w)
    return with_gradient(partial(_loss, n_old), logits, index, folded, w)


def exemplar_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    n_old: int,
    first: int = 1,
    form: Literal["exact", "published"] = "exact",
    weight: Tensor | None = None,
    ignore_index: int = 255,
) -> Tensor:
    """Cross-entropy of images whose background may be any class that they do not label.

    log p(k) = z[k] - LSE(z) for a labelled class k, first <= k < n_old; any other label is background,
    log p(0) = LSE(z[0:first], z[n_old:]) - LSE(z). With first = 1 these are images of earlier steps whose background
    may be any new class (MiB-AugM: Kwak et al., 2024); without further outputs it is plain cross-entropy.

    Args:
        logits: (B, C, H, W), any floating type; computed in at least float32.
        target: (B, H, W) int64; never changed.
        n_old: first output behind the labelled classes; 1 <= first <= n_old <= C.
        first: first of the labelled classes.
        form: exact: void pixels are ignored; published: they are background, as every label from `n_old` on.
        weight: None, (B,) per sample or (B, H, W) per pixel loss weights (constants).
        ignore_index: label of void pixels.
    """
    if not 1 <= first <= n_old <= logits.shape[1]:
        raise ValueError(f"n_old is {n_old}, first {first}, but the network has {logits.shape[1]} outputs")
    if form not in ("exact", "published"):
        raise ValueError(f"form is '{form}', not 'exact' or 'published'")
    # background and classes without labels in front: the outputs that `unbiased_cross_entropy` folds into background
    reordered = torch.cat([logits[:, :first], logits[:, n_old:], logits[:, first:n_old]], 1)
    n_new = logits.shape[1] - n_old
    void = target == ignore_index if form == "exact" else torch.zeros_like(target, dtype=torch.bool)
    labelled = (target >= first) & (target < n_old)
    label = torch.where(labelled, target + n_new, 0).masked_fill(void, -1)
    return unbiased_cross_entropy(reordered, label, n_old=first + n_new, weight=weight, ignore_index=-1)


def _formula(n_old: int, logits: Tensor, index: Tensor, folded: Tensor, weight: Tensor) -> Tensor:
    """The loss as one expression, from which a compiler derives the gradient."""
    lse_old = lse = logits[:, :n_old].logsumexp(1)
    if n_old < logits.shape[1]:
        lse = torch.logaddexp(lse_old, logits[:, n_old:].logsumexp(1))
    # not `gather`: its gradient is a scatter, which compilers do not join with other passes
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    labelled = torch.where(classes == index.unsqueeze(1), logits, 0).sum(1)
    return ((lse - torch.where(folded, lse_old, labelled)) * weight).sum()


def _loss(n_old: int, logits: Tensor, index: Tensor, folded: Tensor, weight: Tensor, gradient: Tensor | None) -> Tensor:
    """The loss, and its gradient; `index` holds 0 at folded and void pixels. See `with_gradient`."""
    total = logits.new_zeros(())
    for block in blocks(logits):
        z, pixels = logits[block], (block[0], block[2])
        t, bg, w = index[pixels], folded[pixels], weight[pixels]  # (b, h, W)
        e = torch.empty_like(z) if gradient is None else gradient[block]
        # Each group has its own maximum, so neither sum can underflow: sums of exponentials are at least 1.
        top_old, sum_old = _exp_into(z[:, :n_old], e[:, :n_old])
        lse_old = sum_old.log() + top_old
        lse = lse_old
        if n_old < z.shape[1]:
            top_new, sum_new = _exp_into(z[:, n_old:], e[:, n_old:])
            lse = torch.logaddexp(lse_old, sum_new.log_().add_(top_new))
            if gradient is not None:
                e[:, n_old:].mul_((top_new - lse).exp_().mul_(w).unsqueeze(1))
        explained = torch.where(bg, lse_old, z.gather(1, t.unsqueeze(1)).squeeze(1))
        total += ((lse - explained) * w).sum()
        if gradient is not None:
            e[:, :n_old].mul_((top_old - lse).exp_().sub_(bg / sum_old).mul_(w).unsqueeze(1))
            e.scatter_add_(1, t.unsqueeze(1), torch.where(bg, 0, -w).unsqueeze(1))
    return total


def _exp_into(z: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Out = exp(z - max); returns maximum and sum over the classes, each (b, h, W)."""
    top = z.amax(1)
    torch.sub(z, top.unsqueeze(1), out=out).exp_()
    return top, out.sum(1)
