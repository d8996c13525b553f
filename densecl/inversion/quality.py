"""How good synthetic images are, in figures."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from densecl.inversion.statistics import BatchStatistics
from densecl.models.network import Network

CHUNK = 64  # images a forward pass
SHOWN = 0.02  # share of an image's pixels that shows a class


class Quality(NamedTuple):
    """Figures of a set of images.

    Attributes:
        target_pixels: share of pixels that the teacher gives to a wanted class of their image.
        foreground: share of pixels that it does not give to background.
        shown: share of wanted classes that it finds on at least 2 % of their image's pixels.
        confidence: mean probability it gives to the class it chooses.
        distance: BatchNorm distance of all images together, with every layer counted once.
    """

    target_pixels: float
    foreground: float
    shown: float
    confidence: float
    distance: float

    def as_dict(self) -> dict[str, float | None]:
        """Rounded, for JSON."""
        return {key: round(value, 4) if math.isfinite(value) else None for key, value in self._asdict().items()}


class Agreement(NamedTuple):
    """What an independent network, trained on real data, says to images.

    Attributes:
        pixels: share of pixels on which it and the teacher choose the same output.
        foreground: the same, of the pixels that the teacher does not give to background.
        shown: share of wanted classes that it finds on at least 2 % of their image's pixels.
    """

    pixels: float
    foreground: float
    shown: float


@torch.no_grad()
def measure_quality(
    images: Tensor, targets: Tensor, teacher: Network, mean: Tensor, std: Tensor, device: torch.device | str = "cpu"
) -> Quality:
    """What the teacher says to uint8 images (N, 3, H, W) with wanted classes (N, C) bool."""
    with BatchStatistics(teacher) as statistics:
        sums = _Sums(statistics)
        confidence, labels = [], []
        for chunk in images.split(CHUNK):
            statistics.clear()
            top, label = _predict(teacher, chunk, mean, std, device)
            sums.add()
            confidence.append(top)
            labels.append(label)
        distance = sums.distance()
    chosen = torch.cat(labels)
    wanted = targets.gather(1, chosen.flatten(1))  # (N, H W) bool: the pixel shows what it shall
    return Quality(
        target_pixels=wanted.float().mean().item(),
        foreground=(chosen > 0).float().mean().item(),
        shown=_shown(chosen, targets),
        confidence=torch.cat(confidence).mean().item(),
        distance=distance,
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
    """How far another network, trained on real data from another start, sees the same in uint8 images (N, 3, H, W)."""
    ours, theirs = (
        torch.cat([_predict(network, chunk, mean, std, device)[1] for chunk in images.split(CHUNK)])
        for network in (teacher, judge)
    )
    same, foreground = ours == theirs, ours > 0
    return Agreement(
        same.float().mean().item(),
        same[foreground].float().mean().item() if foreground.any() else math.nan,
        _shown(theirs, targets),
    )


def _predict(
    network: Network, images: Tensor, mean: Tensor, std: Tensor, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Probability of the chosen output and the output, (n, H, W) each, on the CPU."""
    x = images.to(device).float().div(255).sub(mean.to(device)).div(std.to(device))
    training = network.training
    network.eval()
    top, label = network(x).logits.softmax(1).max(1)
    network.train(training)
    return top.cpu(), label.cpu()


def _shown(chosen: Tensor, targets: Tensor) -> float:
    """Share of wanted classes that cover at least `SHOWN` of their image."""
    found = [(chosen[i] == label).float().mean() >= SHOWN for i, label in targets.nonzero().tolist()]
    return sum(map(float, found)) / len(found)


class _Sums:
    """Moments of many chunks, added up by layer."""

    def __init__(self, statistics: BatchStatistics):
        self.statistics, self.first, self.second, self.images = statistics, {}, {}, 0

    def add(self) -> None:
        """Add what the statistics saw of one chunk."""
        for number, m in enumerate(self.statistics.found):
            self.first[number] = self.first.get(number, 0) + m.mean * m.images
            self.second[number] = self.second.get(number, 0) + (m.variance + m.mean.square()) * m.images
        self.images += self.statistics.found[0].images if self.statistics.found else 0

    def distance(self) -> float:
        """As `BatchStatistics.distance`, of all chunks together."""
        total = 0.0
        for number, m in enumerate(self.statistics.found):
            mean = self.first[number] / self.images
            variance = self.second[number] / self.images - mean.square()
            total += float((mean - m.layer.running_mean).norm() + (variance - m.layer.running_var).norm())
        return total
