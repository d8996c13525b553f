"""Rows of a head composed of old ones (NeST: Xie et al., ECCV 2024): scores, composition, rescaling."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor, nn

from densecl.losses.reduction import widen


class ComposedHead(nn.Module):
    """A head of old rows and of new ones composed of them; what composes them is trained, and background's row.

    Args:
        scores: (K, C_old, D), with which training begins; see `alignment`.
        weight: (C_old, D) rows of the old head, background's first; constants.
        bias: (C_old,), constants.
        rng: draws the new biases.
    """

    def __init__(self, scores: Tensor, weight: Tensor, bias: Tensor, rng: Generator):
        super().__init__()
        self.old_weight, self.old_bias, bound = weight, bias, weight.shape[1] ** -0.5
        self.maps, self.shares = map(nn.Parameter, start(scores))
        self.bias = nn.Parameter(torch.tensor(rng.uniform(-bound, bound, len(scores))).to(weight))
        self.factors, self.scale = nn.Parameter(torch.ones_like(weight[0])), nn.Parameter(weight.new_ones(()))

    def rows(self) -> Tensor:
        """(C, D), background's first."""
        old = self.old_weight
        return torch.cat([self.scale * self.factors * old[:1], old[1:], compose(self.shares, self.maps, old)])

    def forward(self, decoded: Tensor) -> Tensor:
        """Logits (B, C, h, w) of features (B, D, h, w)."""
        return F.conv2d(decoded, self.rows()[..., None, None], torch.cat([self.old_bias, self.bias]))

    @torch.no_grad()
    def aligned(self) -> tuple[Tensor, Tensor, Tensor]:
        """New rows, their biases and background's row, as `align` rescales them."""
        rows = self.rows()
        return align(rows[len(self.old_weight) :], self.bias, rows[0], self.old_weight, self.old_bias)


def alignment(
    features: Tensor, teacher_logits: Tensor, weight: Tensor, target: Tensor, *, classes: Sequence[int], size: int = 128
) -> tuple[Tensor, Tensor]:
    """Sums over the pixels of each class of 1[f_d w_od > 0] softmax(z)_o, and the counts of its pixels.

    Features and logits are brought to size x size bilinearly, labels by the nearest; all are constants.

    Args:
        features: (B, D, h, w) of the teacher.
        teacher_logits: (B, C_old, h, w).
        weight: (C_old, D) rows of the teacher's head.
        target: (B, H, W) int64.
        classes: K new labels.
        size: side of the maps.

    Returns:
        (K, C_old, D), and (K,).
    """
    weight = widen(weight.detach())
    sums, pixels = weight.new_zeros(len(classes), *weight.shape), weight.new_zeros(len(classes))
    signs = (weight > 0).to(weight), (weight < 0).to(weight)
    maps = features.detach(), teacher_logits.detach(), target
    for f, z, y in zip(*maps, strict=True):  # one at a time: they are large
        grown, grown_z = (
            F.interpolate(widen(x[None]).to(weight), size=(size, size), mode="bilinear", align_corners=False)[0]
            for x in (f, z)
        )
        labels, q = F.interpolate(y[None, None].float(), size=(size, size))[0, 0].long(), grown_z.softmax(0)
        for k, label in enumerate(classes):
            place = labels == label
            at, share = grown[:, place], q[:, place]  # (D, n), (C_old, n)
            with torch.autocast(weight.device.type, enabled=False):
                for sign, of_feature in zip(signs, (at > 0, at < 0), strict=True):
                    sums[k] += sign * (share @ of_feature.to(weight).T)
            pixels[k] += place.sum()
    return sums, pixels


def start(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The maps and shares that training begins with: scores (K, C_old, D), and softmax_o of their sums over d."""
    scores = widen(scores)
    return scores.clone(), scores.sum(2).softmax(1)


def compose(shares: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
    """Rows (K, D) of new outputs: sum_o share_ko map_ko * w_o, the paper's w_c = (M_c * W_old) P_c.

    Shares P are (K, C_old), maps M (K, C_old, D); old rows (C_old, D) are constants.
    """
    maps = widen(maps)
    return (widen(shares).unsqueeze(2) * maps * widen(weight.detach()).to(maps)).sum(1)


def align(
    new_weight: Tensor, new_bias: Tensor, background: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """New rows (K, D), their biases and background's row, rescaled to the norms of the old ones.

    The mean norm of rows becomes that of old rows, the norm of all biases that of the old biases, and the norm of
    background's row what it was. What is 0 stays 0.

    Args:
        new_weight: (K, D).
        new_bias: (K,).
        background: (D,), the row after training.
        weight: (C_old, D) old rows, background's first.
        bias: (C_old,).
    """
    new_weight, new_bias, background, weight, bias = map(widen, (new_weight, new_bias, background, weight, bias))
    wanted = weight.norm(dim=1).mean(), bias.norm(), weight[0].norm()
    own = new_weight.norm(dim=1).mean(), new_bias.norm(), background.norm()
    rows, biases, row = (a / torch.where(b > 0, b, 1) for a, b in zip(wanted, own, strict=True))
    return new_weight * rows, new_bias * biases, background * row
