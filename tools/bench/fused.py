"""Binary losses and Local POD against their textbook form: time and peak memory of forward and backward."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.losses import compare
from bench.rows import Bench, Goal, Row
from densecl.losses import binary_cross_entropy, binary_distillation, local_pod

SMALL = {"shapes": ((2, 21, 32, 32),)}
GOAL = Goal(ratio=2, memory=0.5)


def textbook_binary(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of every channel with a one-hot target, as its formula reads; void pixels are left out."""
    labelled = target != 255
    own = torch.zeros_like(logits).scatter_(1, torch.where(labelled, target, 0).unsqueeze(1), 1.0)
    losses = F.binary_cross_entropy_with_logits(logits, own, reduction="none").sum(1)
    return (losses * labelled).sum() / labelled.sum()


def textbook_distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of every old channel with the teacher's sigmoid."""
    old = logits[:, : teacher_logits.shape[1]]
    return F.binary_cross_entropy_with_logits(old, teacher_logits.sigmoid(), reduction="none").sum(1).mean()


def textbook_pod(features: Tensor, teacher_features: Tensor) -> Tensor:
    """PLOP's eq. 4-7 as they read: the means of each cell's rows and columns, cell by cell."""

    def joined(x: Tensor) -> Tensor:
        strips = []
        for n in (1, 2, 4):
            for rows in x[:, :, : x.shape[2] // n * n].chunk(n, 2):
                for cell in rows[..., : x.shape[3] // n * n].chunk(n, 3):
                    strips += [cell.mean(3).flatten(1), cell.mean(2).flatten(1)]
        return torch.cat(strips, 1)

    return torch.linalg.vector_norm(joined(features**2) - joined(teacher_features**2), dim=1).mean()


def measure(
    bench: Bench, shapes: tuple[tuple[int, int, int, int], ...] = ((8, 21, 512, 512), (8, 151, 256, 256))
) -> Iterator[Row]:
    """Compare each loss at shapes (B, C, H, W), with a teacher of two thirds of the outputs; Local POD on two images.

    The memory does not count the logits themselves; their gradient is counted.
    """
    for shape in shapes:
        generator = torch.Generator().manual_seed(0)
        logits, teacher = (torch.randn(shape, generator=generator).to(bench.device) for _ in range(2))
        target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
        target[:, : shape[2] // 32] = 255
        target, old, two = target.to(bench.device), teacher[:, : shape[1] * 2 // 3].contiguous(), teacher[:2]
        logits.requires_grad_()
        features = logits.detach()[:2].clone().requires_grad_()
        forms = {
            "binary cross-entropy": (logits, binary_cross_entropy, textbook_binary, target),
            "binary distillation": (logits, binary_distillation, textbook_distillation, old),
            "Local POD": (features, local_pod, textbook_pod, two),
        }
        for name, (x, ours, textbook, other) in forms.items():
            mine, theirs = (lambda z, f=f, other=other: f(z, other) for f in (ours, textbook))
            what = f"{name}, {'x'.join(map(str, x.shape))}"
            yield compare(bench, x, what, ("fused", mine), ("textbook", theirs), GOAL)
