"""Errors of depth and of surface normals, over all pixels whose truth is known."""

import torch
from torch import Tensor

BINS = 18_000  # of angles, 0.01 degrees each
WITHIN = (11.25, 22.5, 30.0)  # degrees, of the shares that are reported
FACTOR = 1.25  # a depth is near the truth if neither is more than 1.25, 1.25^2 or 1.25^3 times the other


def depth_errors(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute and mean relative error, |p - t| and |p - t| / t, where the target is not 0; 0 where it is nowhere.

    Both are scalars; maps of any one shape, in at least float32.
    """
    prediction, target = _known_depth(prediction, target)
    error = (prediction - target).abs()
    count = max(1, target.numel())
    return error.sum() / count, (error / target).sum() / count


def normal_angles(prediction: Tensor, target: Tensor) -> Tensor:
    """Angles in degrees, (n,), between vectors (B, 3, H, W) where the target is known; 90 for a prediction of 0.

    Lengths do not matter. The angle is that of sine and cosine: an arc cosine alone loses half the digits near 0.
    """
    prediction, target = _wide(prediction, target)
    where = (target != 0).any(1)
    p, t = (vectors.movedim(1, -1)[where] for vectors in (prediction, target))  # (n, 3)
    angles = torch.atan2(torch.linalg.cross(p, t).norm(dim=1), (p * t).sum(1)).rad2deg()
    return torch.where((p == 0).all(1), torch.full_like(angles, 90), angles)


class DepthMetrics:
    """Errors of depth over all known pixels of all images (not a mean of means of images).

    Attributes:
        sums: (7,) float64 on the CPU: known pixels, and the sums over them of what `compute` averages.
    """

    names = ("absolute", "relative", "rmse", "delta1", "delta2", "delta3")

    def __init__(self, unit: float = 1.0):
        self.unit = unit  # of a map's value 1, for the two errors that have one
        self.sums = torch.zeros(7, dtype=torch.float64)

    def update(self, output: Tensor, image: Tensor, target: Tensor) -> None:
        """Count a batch of predicted and true maps (B, 1, H, W); the image is not looked at."""
        p, t = (part.double() for part in _known_depth(output, target))
        error = (p - t).abs()
        ratio = torch.where(p > 0, torch.maximum(p / t, t / p), torch.inf)  # no depth is below 0
        near = [(ratio < FACTOR**power).sum() for power in (1, 2, 3)]
        parts = [torch.tensor(t.numel()), error.sum(), (error / t).sum(), error.square().sum(), *near]
        self.sums = self.sums + torch.stack([part.double().cpu() for part in parts])

    def compute(self) -> dict[str, float]:
        """Mean absolute and relative error, root of the mean square, shares near the truth; NaN for no known pixel."""
        absolute, relative, square, *near = (self.sums[1:] / self.sums[0]).tolist()
        values = (absolute * self.unit, relative, square**0.5 * self.unit, *near)
        return dict(zip(self.names, values, strict=True))


class NormalMetrics:
    """Angles between normals over all known pixels of all images.

    Attributes:
        sums: (BINS + 5,) float64 on the CPU: pixels, their summed angle, those within each of `WITHIN`, a histogram.
    """

    names = ("angle", "median", *(f"within_{degrees:g}" for degrees in WITHIN))

    def __init__(self) -> None:
        self.sums = torch.zeros(BINS + 5, dtype=torch.float64)

    def update(self, output: Tensor, image: Tensor, target: Tensor) -> None:
        """Count a batch of predicted and true vectors (B, 3, H, W); the image is not looked at."""
        angles = normal_angles(output, target)
        bins = (angles * (BINS / 180)).long().clamp(max=BINS - 1)
        near = [(angles < degrees).sum() for degrees in WITHIN]
        parts = [torch.tensor(angles.numel()), angles.double().sum(), *near]
        counts = torch.bincount(bins, minlength=BINS)
        self.sums = self.sums + torch.cat([torch.stack([part.double().cpu() for part in parts]), counts.double().cpu()])

    def compute(self) -> dict[str, float]:
        """Mean and median angle in degrees (the median to 0.01) and shares within `WITHIN`; NaN for no pixel."""
        pixels = float(self.sums[0])
        mean, *near = (self.sums[1:5] / pixels).tolist()
        return dict(zip(self.names, (mean, self._median(pixels), *near), strict=True))

    def _median(self, pixels: float) -> float:
        """The middle of the histogram, as if angles were spread evenly over a bin."""
        if not pixels:
            return float("nan")
        summed = self.sums[5:].cumsum(0)
        index = int(torch.searchsorted(summed, pixels / 2))
        before = float(summed[index - 1]) if index else 0.0
        return (index + (pixels / 2 - before) / float(self.sums[5 + index])) * 180 / BINS


def _known_depth(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) of both where the target is not 0."""
    prediction, target = _wide(prediction, target)
    where = target != 0
    return prediction[where], target[where]


def _wide(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one floating type, at least float32."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    double = torch.float64 in (prediction.dtype, target.dtype)
    return (prediction.double(), target.double()) if double else (prediction.float(), target.float())
