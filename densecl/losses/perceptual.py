"""Perceptual losses of feature maps (Gatys et al., CVPR 2016; Johnson et al., ECCV 2016), one value a sample."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densecl.losses.reduction import widen


def gram(features: Tensor) -> Tensor:
    """Gram matrices (B, C, C) of features (B, C, H, W), in at least float32: sum over pixels of F_i F_j / (C H W)."""
    flat = widen(features).flatten(2)  # (B, C, H W)
    return torch.bmm(flat, flat.transpose(1, 2)) / (flat.shape[1] * flat.shape[2])


def content_distance(features: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference (B,) of features (B, C, H, W) and those of the content images, which are constant."""
    if features.shape != reference.shape:
        raise ValueError(f"features {tuple(features.shape)} and reference {tuple(reference.shape)} differ in shape")
    features = widen(features)
    return (features - reference.detach().to(features.dtype)).square().mean((1, 2, 3))


def style_distance(features: Sequence[Tensor], grams: Sequence[Tensor], scales: Sequence[float] = ()) -> Tensor:
    """Mean squared difference of Gram matrices, summed over layers, (B,).

    Args:
        features: of L layers, (B, C_l, H_l, W_l) each.
        grams: of the style image, (C_l, C_l) each; constants, made once.
        scales: a layer's term is divided by its scale; none: 1.
    """
    if len(features) != len(grams) or any(f.shape[1] != g.shape[0] for f, g in zip(features, grams, strict=False)):
        shapes = [tuple(f.shape[1:2]) for f in features], [tuple(g.shape[:1]) for g in grams]
        raise ValueError(f"features of {shapes[0]} channels and Gram matrices of {shapes[1]} do not belong together")
    terms = [
        (gram(feature) - reference.detach()).square().mean((1, 2)) / scale
        for feature, reference, scale in zip(features, grams, scales or [1.0] * len(grams), strict=True)
    ]
    return torch.stack(terms).sum(0)
