"""Distances between images that are the output of a network."""

import torch
from torch import Tensor

from densecl.losses.reduction import pixel_weights, widen


def squared_error(prediction: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Mean squared error (L2): the mean over channels, and over pixels as sum(w l) / sum(w).

    Args:
        prediction: (B, C, H, W), any floating type; computed in at least float32.
        target: the same shape; a constant.
        weight: None, (B,) per sample or (B, H, W) per pixel loss weights (constants).
    """
    return _mean(_difference(prediction, target).square(), weight)


def absolute_error(prediction: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error (L1); arguments as `squared_error`."""
    return _mean(_difference(prediction, target).abs(), weight)


def sample_mean(losses: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of losses (B,) as sum(w l) / sum(w); zero when no sample counts. Weights of pixels are refused."""
    if weight is None:
        return losses.mean()
    if weight.shape != losses.shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, not {tuple(losses.shape)} of the losses of samples")
    weight = weight.detach().to(losses.dtype)
    total = weight.sum()
    return (losses * weight).sum() / torch.where(total == 0, torch.ones_like(total), total)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    prediction = widen(prediction)
    return prediction - target.detach().to(prediction.dtype)


def _mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of losses (B, C, H, W)."""
    if weight is None:
        return losses.mean()
    pixels = losses.mean(1)  # (B, H, W)
    return (pixels * pixel_weights(weight, torch.ones_like(pixels, dtype=torch.bool), pixels.dtype)).sum()
