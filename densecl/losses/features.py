"""Distances of feature maps: squared error (ILT), masked (STAR), Local POD (PLOP, eq. 4-7), pooled (RCIL)."""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise, starmap
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import pair, widen, with_gradient

CHUNK_ELEMENTS = 1 << 18  # a map's channels are joined up to here: 1 MiB of float32
FEW_PLACES = 32 * 32  # a smaller map's strips are faster by themselves than in bands


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
    The gradient of large maps is analytic and made in the forward pass: 2 f Phi'(strips) / (B norm).
    """
    features, teacher = pair(features, teacher_features, "features", "teacher's")
    height, width = features.shape[2:]
    used = [n for n in cells if n <= height and n <= width]
    # a compiler makes one pass of the formula, and few places are in the cache anyhow
    if torch.compiler.is_compiling() or height * width < FEW_PLACES:
        return _mean_norm(torch.cat(_strips(_of_squares(features, teacher), used), 1))
    return with_gradient(partial(_pod, used), features, teacher)


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


def _strips(x: Tensor, cells: Sequence[int]) -> list[Tensor]:
    """Means of the rows and columns of all cells of maps (B, D, h, w), each (B, means); at least one of no means."""
    batch, channels, height, width = x.shape
    strips = [x[..., :0].flatten(1)]
    for n in cells:
        rows, columns = height // n, width // n
        cut = x[..., : n * rows, : n * columns].reshape(batch, channels, n, rows, n, columns)
        strips += [cut.mean(5).flatten(1), cut.mean(3).flatten(1)]
    return strips


class Bands(NamedTuple):
    """A side of a map cut at all borders of cells, so that each cell is a run of bands."""

    bands: list[slice]
    used: list[int]  # the length that n cells use, for each n
    means: list[Tensor]  # (n, bands): the cells' means of the bands' sums


@lru_cache(64)
def _bands(side: int, cells: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Bands:
    used, means = [side // n * n for n in cells], []
    borders = sorted(
        {0, side, *(k * (length // n) for n, length in zip(cells, used, strict=True) for k in range(n))} | set(used)
    )
    for n, length in zip(cells, used, strict=True):
        inside = [[start * n // length == k for start in borders[:-1]] for k in range(n)]
        means.append(torch.tensor(inside, dtype=dtype, device=device) / (length // n))
    return Bands(list(starmap(slice, pairwise(borders))), used, means)


def _pod(cells: Sequence[int], features: Tensor, teacher: Tensor, gradient: Tensor | None) -> Tensor:
    """Local POD, and its gradient; some images, or channels of an image, at a time, whose passes stay in the cache."""
    batch, channels, height, width = features.shape
    down, across = (_bands(side, tuple(cells), features.dtype, features.device) for side in (height, width))
    at_once = CHUNK_ELEMENTS if features.device.type == "cpu" else features.numel()
    images = max(1, at_once // max(1, channels * height * width))
    joined = max(1, channels if images > 1 else at_once // max(1, height * width))
    total = features.new_zeros(())
    for first in range(0, batch, images):
        own = slice(first, first + images)
        squares = features.new_zeros(len(features[own]))
        for channel in range(0, channels, joined):
            block = own, slice(channel, channel + joined)
            part = None if gradient is None else gradient[block]
            squares += _squares_of_strips(features[block], teacher[block], down, across, part)
        norms = squares.sqrt()
        total += norms.sum()
        if gradient is not None:
            gradient[own] *= torch.where(norms == 0, 0, 2 / (norms * batch)).view(-1, 1, 1, 1)
    return total / max(1, batch)


def _squares_of_strips(f: Tensor, t: Tensor, down: Bands, across: Bands, gradient: Tensor | None) -> Tensor:
    """Sums of squares of the strips of maps (b, d, h, w); `gradient` gets f times half of their gradient by f^2.

    Both directions are summed once, in bands, for all numbers of cells.
    """
    d = (f - t).mul_(f + t)
    rows = torch.stack([d[..., band].sum(3) for band in across.bands], 2)  # (b, d, bands, h)
    columns = torch.stack([d[:, :, band].sum(2) for band in down.bands], 2)  # (b, d, bands, w)
    of_rows, of_columns = torch.zeros_like(rows), torch.zeros_like(columns)  # half their gradients
    squares = d.new_zeros(len(d))
    with torch.autocast(d.device.type, enabled=False):
        for sums, half, means, used in (
            (rows, of_rows, across.means, down.used),
            (columns, of_columns, down.means, across.used),
        ):
            for mean, length in zip(means, used, strict=True):
                strips = mean @ sums[..., :length]
                squares += strips.square().sum((1, 2, 3))
                half[..., :length] += mean.T @ strips
    if gradient is not None:
        for k, band in enumerate(across.bands):
            gradient[..., band] = of_rows[:, :, k, :, None]
        for k, band in enumerate(down.bands):
            gradient[:, :, band] += of_columns[:, :, k, None]
        gradient.mul_(f)
    return squares


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
