"""Penalties on unnatural images: neighbouring pixels should agree, and values stay small."""

import torch
from torch import Tensor


def differences(images: Tensor) -> tuple[Tensor, ...]:
    """Differences to the neighbours on the right, below, and on both diagonals of (B, C, H, W)."""
    return (
        images[..., :, 1:] - images[..., :, :-1],
        images[..., 1:, :] - images[..., :-1, :],
        images[..., 1:, 1:] - images[..., :-1, :-1],
        images[..., 1:, :-1] - images[..., :-1, 1:],
    )


def total_variation_l1(images: Tensor) -> Tensor:
    """Mean absolute difference of each image, summed over the four directions: (B,)."""
    return torch.stack([d.abs().flatten(1).mean(1) for d in differences(images)]).sum(0)


def variation_energies(images: Tensor) -> Tensor:
    """Sum of squared differences of the whole batch in each of the four directions: (4,).

    The TV-l2 prior of Yin et al. (CVPR 2020) is the sum of their square roots: one norm over the whole batch, so it
    grows with the square root of the batch.
    """
    return torch.stack([d.square().sum() for d in differences(images)])


def l2_norm(images: Tensor) -> Tensor:
    """Euclidean norm of each image: (B,)."""
    return images.flatten(1).norm(dim=1)
