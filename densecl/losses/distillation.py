"""Distillation of a teacher's class probabilities: plain (LwF), with new classes in the background (MiB), weighed by
how similar old classes are to the new one of a pixel (REMINDER).
"""

import torch
from torch import Tensor

from densecl.losses.reduction import blocks, pixel_weights, widen, with_gradient


def distillation(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the old outputs with the teacher's (LwF: Li and Hoiem, ECCV 2016).

    -T^2 mean over old classes and pixels of softmax(teacher / T) log_softmax(logits[:, :C_old] / T), void pixels
    included. The mean over classes (the sum divided by C_old) is that of the MiB code, which explains the weight of
    100 it is used with. T^2 (Hinton et al., 2015) keeps the gradient's size when T changes; the MiB code has T = 1.

    Args:
        logits: (B, C, H, W), any floating type; computed in at least float32.
        teacher_logits: (B, C_old, H, W) with C_old <= C; a constant.
        temperature: T > 0.
        weight: of samples (B,) or pixels (B, H, W), for the mean sum(w l) / sum(w), which is 0 when all weights are.
    """
    n_old = _check(logits, teacher_logits)
    z = widen(logits)[:, :n_old] / temperature
    q = (widen(teacher_logits.detach()) / temperature).softmax(1).to(z.dtype)
    w = _all_pixels(z, weight)
    # sum(q) = 1, so -sum(q log_softmax(z)) = LSE(z) - sum(q z)
    return ((z.logsumexp(1) - (q * z).sum(1)) * w).sum() * (temperature**2 / n_old)


def unbiased_distillation(logits: Tensor, teacher_logits: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Distillation in which the teacher's background may be any new class (MiB: Cermelli et al., CVPR 2020, eq. 8-9).

    With A = {0, C_old, .., C-1}: log p(0) = LSE(z[A]) - LSE(z), log p(k) = z[k] - LSE(z) for 1 <= k < C_old; the loss
    is -(1/C_old) sum_k softmax(teacher)[k] log p(k), mean over pixels, void included. Without new classes it equals
    `distillation`, whose arguments it has. The gradient is analytic: (p - q[0] softmax(z[A])) / C_old on A,
    (p - q) / C_old elsewhere.
    """
    n_old = _check(logits, teacher_logits)
    logits, teacher = widen(logits), teacher_logits.detach()
    w = _all_pixels(logits, weight) / n_old
    if torch.compiler.is_compiling():  # of the formula a compiler makes one pass
        return _formula(logits, teacher, w)
    return with_gradient(_loss, logits, teacher, w)


def similarity_distillation(
    logits: Tensor, teacher_logits: Tensor, target: Tensor, similarity: Tensor, *, temperature: float = 3.0
) -> Tensor:
    """Distillation on pixels of new classes, old ones weighed by their similarity (REMINDER: Phan et al., CVPR 2022).

    T^2 mean over pixels of new classes of -sum_k (w_yk q_k + 1e-7) log p_k, with q and p the softmax of the old logits
    over T; 0 without such a pixel.

    Args:
        logits: (B, C, H, W), any floating type; computed in at least float32.
        teacher_logits: (B, C_old, H, W) with C_old <= C; a constant.
        target: (B, H, W) int64, new classes from C_old on, 255 void; never changed.
        similarity: w (C_new, C_old), of which row i is label C_old + i; a constant.
        temperature: T > 0.
    """
    n_old = _check(logits, teacher_logits)
    new = (target >= n_old) & (target < n_old + len(similarity))
    z = (widen(logits)[:, :n_old] / temperature).movedim(1, -1)[new]  # (n, C_old)
    q = (widen(teacher_logits.detach()).to(z.dtype) / temperature).movedim(1, -1)[new].softmax(1)
    wanted = similarity.detach().to(z.dtype)[target[new] - n_old] * q + 1e-7
    return -(wanted * z.log_softmax(1)).sum() * (temperature**2 / max(1, len(z)))


def _formula(logits: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """The unbiased loss as one expression, from which a compiler derives the gradient; weights (B, H, W) of pixels."""
    n_old = teacher.shape[1]
    q = widen(teacher).to(logits.dtype).softmax(1)
    lse_bg = logits[:, 0]
    if n_old < logits.shape[1]:
        lse_bg = torch.logaddexp(lse_bg, logits[:, n_old:].logsumexp(1))
    lse, explained = lse_bg, q[:, 0] * lse_bg
    if n_old > 1:
        lse = torch.logaddexp(lse_bg, logits[:, 1:n_old].logsumexp(1))
        explained = explained + (q[:, 1:] * logits[:, 1:n_old]).sum(1)
    return ((lse - explained) * weight).sum()


def _loss(logits: Tensor, teacher: Tensor, weight: Tensor, gradient: Tensor | None) -> Tensor:
    """The loss, and its gradient; see `with_gradient`."""
    total = logits.new_zeros(())
    n_old, n_all = teacher.shape[1], logits.shape[1]
    old, new = slice(1, n_old), slice(n_old, n_all)
    for block in blocks(logits):
        z, w = logits[block], weight[block[0], block[2]]  # (b, C, h, W), (b, h, W)
        q = widen(teacher[block]).to(z.dtype).softmax(1)  # (b, C_old, h, W)
        e = torch.empty_like(z) if gradient is None else gradient[block]
        # Two groups with a maximum each, so neither sum can underflow: background and new classes, the other old ones.
        top_bg = z[:, 0] if n_old == n_all else torch.maximum(z[:, 0], z[:, new].amax(1))
        e[:, 0] = (z[:, 0] - top_bg).exp_()
        sum_bg = e[:, 0].clone()
        if n_old < n_all:
            sum_bg += torch.sub(z[:, new], top_bg.unsqueeze(1), out=e[:, new]).exp_().sum(1)
        lse_bg = sum_bg.log() + top_bg
        lse, explained = lse_bg, q[:, 0] * lse_bg
        if n_old > 1:
            top = z[:, old].amax(1)
            torch.sub(z[:, old], top.unsqueeze(1), out=e[:, old]).exp_()
            lse = torch.logaddexp(lse_bg, e[:, old].sum(1).log_().add_(top))
            explained += (q[:, old] * z[:, old]).sum(1)
            if gradient is not None:
                e[:, old].mul_((top - lse).exp_().mul_(w).unsqueeze(1))
                e[:, old].addcmul_(q[:, old], w.unsqueeze(1), value=-1)
        total += ((lse - explained) * w).sum()
        if gradient is not None:
            factor = (top_bg - lse).exp_().sub_(q[:, 0] / sum_bg).mul_(w)
            e[:, 0].mul_(factor)
            e[:, new].mul_(factor.unsqueeze(1))
    return total


def _check(logits: Tensor, teacher_logits: Tensor) -> int:
    """Compare the shapes and return the number of the teacher's outputs."""
    n_old = teacher_logits.shape[1]
    if n_old > logits.shape[1] or n_old == 0:
        raise ValueError(f"the teacher has {n_old} outputs, the network {logits.shape[1]}")
    if teacher_logits.shape[2:] != logits.shape[2:] or len(teacher_logits) != len(logits):
        raise ValueError(f"teacher {tuple(teacher_logits.shape)} and network {tuple(logits.shape)} differ in shape")
    return n_old


def _all_pixels(logits: Tensor, weight: Tensor | None) -> Tensor:
    """Weights of sum 1 over all pixels, (B, H, W)."""
    valid = torch.ones((len(logits), *logits.shape[2:]), dtype=torch.bool, device=logits.device)
    return pixel_weights(weight, valid, logits.dtype)
