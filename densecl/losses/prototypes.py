"""Losses between features and prototypes of classes: STAR (Chen et al., NeurIPS 2023)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import widen

Absent = Literal["left out", "counted"]
NEAREST = 1e-6  # distances below it count as it


def prototype_repulsion(
    features: Tensor,
    target: Tensor,
    prototypes: Tensor,
    *,
    classes: Sequence[int],
    absent: Absent = "left out",
) -> Tensor:
    """Mean over classes of 1 / distance between a class's mean direction and the nearest prototype (STAR).

    The direction is unit(sum_p t_c(p) unit(f_p)), with t_c the class's mask brought to the features bilinearly.

    Args:
        features: (B, D, h, w), any floating type; computed in at least float32.
        target: (B, H, W) int64; never changed.
        prototypes: (K, D), of unit length; constants. None of them: 0.
        classes: the labels whose directions are kept away.
        absent: "left out": the mean is over the classes that are there; "counted": one that is not adds 1.
    """
    if absent not in ("left out", "counted"):
        raise ValueError(f"absent is '{absent}', not 'left out' or 'counted'")
    features = widen(features)
    if not len(prototypes) or not len(classes):
        return features[:0].sum()
    wanted = torch.as_tensor(classes, device=target.device, dtype=target.dtype).view(1, -1, 1, 1)
    masks = (target.unsqueeze(1) == wanted).to(features.dtype)
    masks = F.interpolate(masks, features.shape[-2:], mode="bilinear", align_corners=False)  # (B, classes, h, w)
    with torch.autocast(features.device.type, enabled=False):
        sums = torch.einsum("bkhw,bdhw->kd", masks, F.normalize(features, dim=1))
    directions, known = F.normalize(sums, dim=1), prototypes.detach().to(features.dtype)
    nearest = torch.linalg.vector_norm(directions[:, None] - known, dim=2).amin(1).clamp(min=NEAREST)
    there = masks.sum((0, 2, 3)) > 0
    terms = torch.where(there, 1 / nearest, float(absent == "counted"))
    return terms.sum() / (there.sum().clamp(min=1) if absent == "left out" else len(classes))
