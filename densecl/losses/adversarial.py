"""The two sides of an adversarial loss, from a critic's logits (Goodfellow et al., 2014; Isola et al., CVPR 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import widen


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """What the critic minimises: half the sum of both cross-entropies, as pix2pix has it.

    Args:
        real: logits of real patches, any shape and floating type; computed in at least float32.
        made: logits of patches that the network made, any shape.

    Returns:
        Scalar (mean softplus(-real) + mean softplus(made)) / 2.
    """
    return (F.softplus(-widen(real)).mean() + F.softplus(widen(made)).mean()) / 2


def deception_loss(made: Tensor) -> Tensor:
    """What the network minimises: the critic takes its images for real; the form that does not saturate.

    Args:
        made: logits of patches that the network made, (B, ...).

    Returns:
        (B,): mean softplus(-made) of each sample.
    """
    losses = F.softplus(-widen(made))
    return torch.flatten(losses, 1).mean(1)
