"""Losses of images that are the output of a network: distances, perceptual losses, the two sides of a critic.

Each is computed in at least float32; targets and references are constants.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses.reduction import pair, pixel_weights, widen


def squared_error(prediction: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Mean squared error (L2) of (B, C, H, W): the mean over channels, and over pixels as sum(w l) / sum(w).

    `weight` is None, (B,) per sample or (B, H, W) per pixel (constants).
    """
    return _mean(_difference(prediction, target).square(), weight)


def absolute_error(
    prediction: Tensor, target: Tensor, *, weight: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """Mean absolute error (L1), 0 where none of the pixels `valid`, (B, H, W) bool, counts; else as `squared_error`."""
    return _mean(_difference(prediction, target).abs(), weight, valid)


def cosine_distance(prediction: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """1 - mean dot product of unit vectors (B, C, H, W) where the target is known; 0 where it is nowhere.

    `weight` as for `squared_error`. Vectors are taken as they are: nothing is made unit here.
    """
    prediction, target = pair(prediction, target, "prediction", "target")
    losses = 1 - (prediction * target).sum(1)  # (B, H, W)
    return (losses * pixel_weights(weight, known(target), losses.dtype)).sum()


def known(target: Tensor) -> Tensor:
    """(B, H, W) bool: where a map (B, C, H, W) of depth or normals holds a value, that is, is not 0 throughout."""
    return (target != 0).any(1)


def sample_mean(losses: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of losses (B,) as sum(w l) / sum(w); zero when no sample counts. Weights of pixels are refused."""
    if weight is None:
        return losses.mean()
    if weight.shape != losses.shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, not {tuple(losses.shape)} of the losses of samples")
    weight = weight.detach().to(losses.dtype)
    total = weight.sum()
    return (losses * weight).sum() / torch.where(total == 0, torch.ones_like(total), total)


def gram(features: Tensor) -> Tensor:
    """Gram matrices (B, C, C) of features (B, C, H, W): sum over pixels of F_i F_j / (C H W)."""
    flat = widen(features).flatten(2)  # (B, C, H W)
    return torch.bmm(flat, flat.transpose(1, 2)) / (flat.shape[1] * flat.shape[2])


def content_distance(features: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference (B,) of features (B, C, H, W) and those of the content images.

    Gatys et al., CVPR 2016; Johnson et al., ECCV 2016.
    """
    features, reference = pair(features, reference, "features", "reference")
    return (features - reference).square().mean((1, 2, 3))


def style_distance(features: Sequence[Tensor], grams: Sequence[Tensor], scales: Sequence[float] = ()) -> Tensor:
    """Mean squared difference of Gram matrices, summed over layers, (B,).

    Args:
        features: of L layers, (B, C_l, H_l, W_l) each.
        grams: of the style image, (C_l, C_l) each; made once.
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


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """Loss of the critic: (mean softplus(-real) + mean softplus(made)) / 2, half the sum as in pix2pix.

    `real` and `made` are logits of real patches and of those that the network made, of any shape (Goodfellow et al.,
    2014; Isola et al., CVPR 2017).
    """
    return (F.softplus(-widen(real)).mean() + F.softplus(widen(made)).mean()) / 2


def deception_loss(made: Tensor) -> Tensor:
    """Loss of the network whose patches get the logits `made` (B, ...): mean softplus(-made) of each sample, (B,)."""
    return F.softplus(-widen(made)).flatten(1).mean(1)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    prediction, target = pair(prediction, target, "prediction", "target")
    return prediction - target


def _mean(losses: Tensor, weight: Tensor | None, valid: Tensor | None = None) -> Tensor:
    """The mean of losses (B, C, H, W)."""
    if weight is None and valid is None:
        return losses.mean()
    pixels = losses.mean(1)  # (B, H, W)
    valid = torch.ones_like(pixels, dtype=torch.bool) if valid is None else valid
    return (pixels * pixel_weights(weight, valid, pixels.dtype)).sum()
