"""Figures of the quality of synthetic images."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from densecl.inversion.statistics import BatchStatistics, layer_distance
from densecl.models.network import Network

CHUNK = 64  # images a forward pass
SHOWN = 0.02  # share of an image's pixels that shows a class


class Quality(NamedTuple):
    """Figures of a set of images, as the teacher predicts them."""

    target_pixels: float  # share of pixels of a wanted class of their image
    foreground: float  # share of pixels that are not background
    shown: float  # share of wanted classes found on at least 2 % of the pixels of their image
    confidence: float  # mean probability of the predicted class
    distance: float  # BatchNorm distance of all images together, with every layer counted once

    def as_dict(self) -> dict[str, float | None]:
        """Rounded, for JSON."""
        return {key: round(value, 4) if math.isfinite(value) else None for key, value in self._asdict().items()}


class Agreement(NamedTuple):
    """Agreement of the teacher with an independent network that was trained on real data."""

    pixels: float  # share of pixels on which both predict the same
    foreground: float  # likewise, of the pixels that the teacher does not call background
    shown: float  # share of wanted classes that the other finds on at least 2 % of the pixels of their image


@torch.no_grad()
def measure_quality(
    images: Tensor, targets: Tensor, teacher: Network, mean: Tensor, std: Tensor, device: torch.device | str = "cpu"
) -> Quality:
    """The quality of uint8 images (N, 3, H, W) with wanted classes (N, C) bool."""
    with BatchStatistics(teacher) as statistics:
        confidences, labels, layers, sums = [], [], [], []
        for probabilities in predictions(teacher, images, mean, std, device):
            confidence, label = probabilities.max(1)
            confidences.append(confidence.cpu())
            labels.append(label.cpu())
            layers = [m.layer for m in statistics.found]
            chunk = [torch.stack([m.mean, m.variance + m.mean.square()]) * len(label) for m in statistics.found]
            sums = [a + b for a, b in zip(sums, chunk, strict=True)] if sums else chunk
            statistics.clear()
    averages = [each / len(images) for each in sums]  # of all chunks: first and second moments of each layer
    distances = [layer_distance(layer, a[0], a[1] - a[0].square()) for layer, a in zip(layers, averages, strict=True)]
    predicted = torch.cat(labels)
    wanted = targets.gather(1, predicted.flatten(1))  # (N, H W) bool: the pixel shows what it shall
    return Quality(
        target_pixels=wanted.float().mean().item(),
        foreground=(predicted > 0).float().mean().item(),
        shown=_shown(predicted, targets),
        confidence=torch.cat(confidences).mean().item(),
        distance=sum(map(float, distances)),
    )


@torch.no_grad()
def agreement(
    images: Tensor,
    targets: Tensor,
    teacher: Network,
    judge: Network,
    mean: Tensor,
    std: Tensor,
    device: torch.device | str = "cpu",
) -> Agreement:
    """The agreement of teacher and judge on uint8 images (N, 3, H, W) with wanted classes (N, C) bool."""
    ours, theirs = (
        torch.cat([p.argmax(1).cpu() for p in predictions(network, images, mean, std, device)])
        for network in (teacher, judge)
    )
    same, foreground = ours == theirs, ours > 0
    return Agreement(
        same.float().mean().item(),
        same[foreground].float().mean().item() if foreground.any() else math.nan,
        _shown(theirs, targets),
    )


def predictions(
    network: Network, images: Tensor, mean: Tensor, std: Tensor, device: torch.device | str
) -> Iterator[Tensor]:
    """Probabilities (n, C, H, W) of uint8 images, some at a time; the mode of the network is kept."""
    training = network.training
    for chunk in images.split(CHUNK):
        x = chunk.to(device).float().div(255).sub(mean.to(device)).div(std.to(device))
        network.eval()
        logits = network(x).logits
        network.train(training)
        yield logits.softmax(1)


def _shown(predicted: Tensor, targets: Tensor) -> float:
    """Share of wanted classes that cover at least `SHOWN` of their image."""
    shown = [(predicted[i] == label).float().mean() >= SHOWN for i, label in targets.nonzero().tolist()]
    return sum(map(float, shown)) / len(shown)
