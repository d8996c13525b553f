"""Losses: pure functions of tensors, mean-reduced, in float32 or float64 whatever the input's precision."""

from densecl.losses.cross_entropy import cross_entropy, unbiased_cross_entropy
from densecl.losses.distillation import distillation, unbiased_distillation
from densecl.losses.features import feature_distillation

__all__ = [
    "cross_entropy",
    "distillation",
    "feature_distillation",
    "unbiased_cross_entropy",
    "unbiased_distillation",
]
