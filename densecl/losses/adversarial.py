"""The two sides of an adversarial loss, from a critic's logits (Goodfellow et al., 2014; Isola et al., CVPR 2017)."""

import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import widen


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """Loss of the critic: (mean softplus(-real) + mean softplus(made)) / 2, half the sum as in pix2pix.

    Args:
        real: logits of real patches, any shape and floating type; computed in at least float32.
        made: logits of patches that the network made, any shape.
    """
    return (F.softplus(-widen(real)).mean() + F.softplus(widen(made)).mean()) / 2


def deception_loss(made: Tensor) -> Tensor:
    """Loss of the network whose patches get the logits `made` (B, ...): mean softplus(-made) of each sample, (B,)."""
    return F.softplus(-widen(made)).flatten(1).mean(1)
