"""Distances between feature maps."""

import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import widen


def feature_distillation(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared error over all elements (ILT: Michieli and Zanuttigh, ICCV Workshops 2019).

    Any shape and floating type, computed in at least float32; the teacher's features are a constant.
    """
    if features.shape != teacher_features.shape:
        raise ValueError(f"features {tuple(features.shape)} and teacher's {tuple(teacher_features.shape)} differ")
    features = widen(features)
    return F.mse_loss(features, teacher_features.detach().to(features.dtype))
