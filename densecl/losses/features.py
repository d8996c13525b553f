"""Distances of feature maps: squared error (ILT), masked (STAR), Local POD (PLOP, eq. 4-7), pooled (RCIL)."""

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
    difference = _of_squares(features, teacher_features)
    batch, channels, height, width = difference.shape
    strips = [difference[..., :0].flatten(1)]
    for n in cells:
        rows, columns = height // n, width // n
        if rows and columns:
            cut = difference[..., : n * rows, : n * columns].reshape(batch, channels, n, rows, n, columns)
            strips += [cut.mean(5).flatten(1), cut.mean(3).flatten(1)]
    return _mean_norm(torch.cat(strips, 1))


def pooled_spatial_distillation(
    features: Tensor, teacher_features: Tensor, *, sizes: Sequence[int] = (4, 8, 12, 16, 20, 24)
) -> Tensor:
    """Mean over images and window sizes of ||P_k(features^2) - P_k(teacher^2)||_2 (RCIL: Zhang et al., CVPR 2022).

    P_k averages windows of k x k at every place, with k // 2 zeros on each side that count. Maps are (B, D, h, w); that
    of the teacher is a constant.
    """
    difference = _of_squares(features, teacher_features)
    with torch.autocast(difference.device.type, enabled=False):
        # products with two band matrices: on a CPU some ten times as fast as average pooling with overlapping windows
        windows = [[_windows(n, k).to(difference) for n in difference.shape[-2:]] for k in sizes]
        return torch.stack([_mean_norm((difference @ columns.T).mT @ rows.T) for rows, columns in windows]).mean()


def pooled_channel_distillation(features: Tensor, teacher_features: Tensor, *, size: int = 3) -> Tensor:
    """Mean over images of ||P(features^2) - P(teacher^2)||_2, where P averages `size` neighbouring channels (RCIL).

    With size // 2 zeros before the first and after the last one, which count. Maps are (B, D, h, w); the teacher's is a
    constant.
    """
    difference = F.pad(_of_squares(features, teacher_features), (0, 0, 0, 0, size // 2, size // 2))
    n = difference.shape[1] - size + 1
    return _mean_norm(torch.stack([difference[:, k : k + n] for k in range(size)]).mean(0))


def fold_new(logits: Tensor, *, n_old: int) -> Tensor:
    """The first `n_old` logits, with those of the new outputs added to the background's: (B, n_old, h, w)."""
    if not 1 <= n_old <= logits.shape[1]:
        raise ValueError(f"n_old is {n_old}, but the network has {logits.shape[1]} outputs")
    logits = widen(logits)
    background = logits[:, :1] + logits[:, n_old:].sum(1, keepdim=True)
    return torch.cat([background, logits[:, 1:n_old]], 1)


def _of_squares(features: Tensor, teacher_features: Tensor) -> Tensor:
    """The difference of the squares of two maps; pooling is linear, so it is pooled in their place."""
    features, teacher = pair(features, teacher_features, "features", "teacher's")
    return (features - teacher) * (features + teacher)


def _windows(side: int, size: int) -> Tensor:
    """Matrix that averages each window of `size` places of a side with size // 2 zeros at both ends."""
    start = torch.arange(side + 2 * (size // 2) - size + 1).unsqueeze(1) - size // 2
    place = torch.arange(side)
    return ((start <= place) & (place < start + size)).double() / size


def _mean_norm(x: Tensor) -> Tensor:
    """Mean over images of the norm of all elements; its gradient at 0 is 0."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).sum() / max(1, len(x))
