"""Distances between feature maps: squared error (ILT), masked (STAR), and Local POD of PLOP (CVPR 2021, eq. 4-7)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import pair, widen


def feature_distillation(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared error over all elements (ILT: Michieli and Zanuttigh, ICCV Workshops 2019).

    Any shape and floating type, computed in at least float32; the teacher's features are a constant.
    """
    return F.mse_loss(*pair(features, teacher_features, "features", "teacher's"))


def masked_feature_distillation(features: Tensor, teacher_features: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the places of a mask and over channels (STAR: Chen et al., NeurIPS 2023, OCFM).

    sum m (f - f_t)^2 / (D sum m); 0 where the mask is empty.

    Args:
        features: (B, D, h, w), any floating type; computed in at least float32.
        teacher_features: the teacher's, of the same shape; a constant.
        mask: (B, H, W) bool, brought to the features bilinearly; or weights of any floating type.
    """
    features, teacher = pair(features, teacher_features, "features", "teacher's")
    weight = mask.detach().unsqueeze(1).to(features.dtype)
    weight = F.interpolate(weight, features.shape[-2:], mode="bilinear", align_corners=False)
    total = weight.sum() * features.shape[1]
    return (weight * (features - teacher).square()).sum() / torch.where(total == 0, 1, total)


def local_pod(features: Tensor, teacher_features: Tensor, *, cells: Sequence[int] = (1, 2, 4)) -> Tensor:
    """Mean over images of ||Phi(features^2) - Phi(teacher^2)||_2, of maps (B, D, h, w); the teacher's is a constant.

    Phi cuts a map into n x n cells for every n of `cells` and joins the means of each cell's rows and columns. A cell
    has height // n by width // n pixels; what is left of a side is not used, and an n larger than a side is left out.
    """
    features, teacher = pair(features, teacher_features, "features", "teacher's")
    difference = (features - teacher) * (features + teacher)  # of the squares; Phi is linear
    batch, channels, height, width = difference.shape
    strips = [difference[..., :0].flatten(1)]
    for n in cells:
        rows, columns = height // n, width // n
        if rows and columns:
            cut = difference[..., : n * rows, : n * columns].reshape(batch, channels, n, rows, n, columns)
            strips += [cut.mean(5).flatten(1), cut.mean(3).flatten(1)]
    norms = torch.linalg.vector_norm(torch.cat(strips, 1), dim=1)  # its gradient at equal maps is 0
    return norms.sum() / max(1, batch)


def fold_new(logits: Tensor, *, n_old: int) -> Tensor:
    """The first `n_old` logits, with those of the new outputs added to the background's: (B, n_old, h, w)."""
    if not 1 <= n_old <= logits.shape[1]:
        raise ValueError(f"n_old is {n_old}, but the network has {logits.shape[1]} outputs")
    logits = widen(logits)
    background = logits[:, :1] + logits[:, n_old:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:n_old]], 1)
