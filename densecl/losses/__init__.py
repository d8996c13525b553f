"""Losses: pure functions of tensors, mean-reduced, in float32 or float64 whatever the input's precision.

Those of cross-entropy and distillation are loaded at once, all others when one of them is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from densecl.losses.cross_entropy import cross_entropy, exemplar_cross_entropy, unbiased_cross_entropy
from densecl.losses.distillation import distillation, similarity_distillation, unbiased_distillation

if TYPE_CHECKING:
    from densecl.losses.binary import binary_cross_entropy, binary_distillation
    from densecl.losses.features import (
        feature_distillation,
        fold_new,
        local_pod,
        masked_feature_distillation,
        pooled_channel_distillation,
        pooled_spatial_distillation,
    )
    from densecl.losses.images import (
        absolute_error,
        content_distance,
        cosine_distance,
        critic_loss,
        deception_loss,
        gram,
        known,
        sample_mean,
        squared_error,
        style_distance,
    )
    from densecl.losses.latent import (
        feature_sparsity,
        prototype_attraction,
        prototype_matching,
        prototype_separation,
    )
    from densecl.losses.prototypes import prototype_repulsion

__all__ = [
    "absolute_error",
    "binary_cross_entropy",
    "binary_distillation",
    "content_distance",
    "cosine_distance",
    "critic_loss",
    "cross_entropy",
    "deception_loss",
    "distillation",
    "exemplar_cross_entropy",
    "feature_distillation",
    "feature_sparsity",
    "fold_new",
    "gram",
    "known",
    "local_pod",
    "masked_feature_distillation",
    "pooled_channel_distillation",
    "pooled_spatial_distillation",
    "prototype_attraction",
    "prototype_matching",
    "prototype_repulsion",
    "prototype_separation",
    "sample_mean",
    "similarity_distillation",
    "squared_error",
    "style_distance",
    "unbiased_cross_entropy",
    "unbiased_distillation",
]

_LATER = ("binary", "features", "images", "latent", "prototypes")


def __getattr__(name: str) -> Any:
    for file in _LATER if name in (*__all__, *_LATER) else ():
        home = importlib.import_module(f"{__name__}.{file}")
        if name == file:
            return home
        if hasattr(home, name):
            return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
