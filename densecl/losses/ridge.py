"""Ridge regression in closed form on a random expansion of features (ACIL: Zhuang et al., NeurIPS 2022; SegACIL).

    W = (sum phi' phi + gamma I)^-1 sum phi' Y,  phi = ReLU(f R), Y one-hot

Both sums are added up over batches and steps, so learning in steps gives what learning at once does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import widen

VOID = 255


def expand(features: Tensor, matrix: Tensor) -> Tensor:
    """ReLU(f R) of each place, (B, h w, E), rows of the map first.

    Args:
        features: (B, D, h, w), any floating type; computed in at least float32.
        matrix: R (D, E), random and fixed.
    """
    features = widen(features)
    with torch.autocast(features.device.type, enabled=False):
        return (features.flatten(2).transpose(1, 2) @ matrix.to(features.dtype)).relu()


def gram(expanded: Tensor, labels: Tensor, *, classes: int) -> tuple[Tensor, Tensor]:
    """Both sums over the labelled places: phi' phi (E, E) and phi' Y (E, classes), in float64.

    Args:
        expanded: phi (B, n, E), as `expand` gives it.
        labels: (B, h, w) or (B, n) int64, 0..classes-1; void (255) is left out; never changed.
        classes: columns of Y, background included.
    """
    flat = labels.reshape(-1)
    known = flat != VOID
    phi, flat = expanded.flatten(0, 1)[known].double(), flat[known]
    if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < classes:
        raise ValueError(f"labels are {int(flat.min())}..{int(flat.max())}, not 0..{classes - 1} or {VOID}")
    return phi.T @ phi, phi.T @ F.one_hot(flat, classes).double()


def ridge(gram: Tensor, cross: Tensor, *, gamma: float) -> Tensor:
    """W = (gram + gamma I)^-1 cross, (E, classes): the least of ||phi W - Y||^2 + gamma ||W||^2.

    Args:
        gram: sum of phi' phi (E, E).
        cross: sum of phi' Y (E, classes).
        gamma: > 0; a constant added to every square.
    """
    if not gamma > 0:
        raise ValueError(f"gamma is {gamma}, not above 0")
    system = gram.double() + gamma * torch.eye(len(gram), dtype=torch.float64, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:  # sums so large that gamma is lost in their last digits
        return torch.linalg.lstsq(system, cross.double()).solution
    return torch.cholesky_solve(cross.double(), factor)
