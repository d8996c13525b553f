"""How close images are: mean squared error and structural similarity, an image at a time, averaged over images."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of the Gaussian window, in pixels (Wang et al., 2004)


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error (B,) of images (B, C, H, W) of any type, over channels and pixels."""
    prediction, truth = _pair(prediction, truth)
    return (prediction - truth).square().mean((1, 2, 3))


def ssim(prediction: Tensor, truth: Tensor, *, data_range: float = 255.0) -> Tensor:
    """Structural similarity (B,) of images (B, C, H, W) of any type (Wang et al., IEEE TIP 2004).

    The mean over channels and window positions. Windows are Gaussian (11x11, sigma 1.5) and lie inside the image, which
    must be as large; K1 = 0.01, K2 = 0.03; variances are those of the window's weights, without a correction for its
    size. (torchmetrics averages over reflected borders as well.) `data_range` is the largest possible difference.
    """
    prediction, truth = _pair(prediction, truth)
    if min(truth.shape[-2:]) < WINDOW:
        raise ValueError(f"images of {truth.shape[-1]}x{truth.shape[-2]} are smaller than SSIM's window of {WINDOW}")
    # variances are differences of large numbers: they lose fewer digits around the middle of the range
    x, y = prediction - data_range / 2, truth - data_range / 2
    moments = _blur(torch.cat([x, y, x * x, y * y, x * y]))  # (5 B, C, H - 10, W - 10)
    mean_x, mean_y, xx, yy, xy = moments.chunk(5)
    var_x, var_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    mean_x, mean_y = mean_x + data_range / 2, mean_y + data_range / 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean((1, 2, 3))


class ImageAverages:
    """Averages over images of named values.

    Attributes:
        names: of the values.
        score: gives the values of a batch, (B,) each, from output, image and target.
        sums: (len(names) + 1,) float64 on the CPU: the sum of each value, and the number of images. Averages over
            several processes are those of the sum of their `sums`.
    """

    def __init__(self, names: Sequence[str], score: Callable[..., Mapping[str, Tensor]] | None = None):
        self.names, self.score = tuple(names), score
        self.sums = torch.zeros(len(self.names) + 1, dtype=torch.float64)

    def update(self, output: Tensor, image: Tensor, target: Tensor) -> None:
        """Count a batch by its `score`, see `tasks.Metrics`."""
        assert self.score is not None
        self.add(self.score(output, image, target))

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count a batch: (B,) of each name."""
        stacked = torch.stack([values[name].detach() for name in self.names]).double()  # (names, B)
        count = stacked.new_full((1,), stacked.shape[1])
        self.sums += torch.cat([stacked.sum(1), count]).cpu()

    def compute(self) -> dict[str, float]:
        """The mean of each value over all images; NaN when there were none."""
        return dict(zip(self.names, (self.sums[:-1] / self.sums[-1]).tolist(), strict=True))


def _pair(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both in floating type, at least float32."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in shape")
    double = torch.float64 in (prediction.dtype, truth.dtype)
    return (prediction.double(), truth.double()) if double else (prediction.float(), truth.float())


def _blur(x: Tensor) -> Tensor:
    """Weighted means (B, C, H - 10, W - 10) over all windows inside (B, C, H, W); the window is separable."""
    offset = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(offset**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    flat = x.reshape(-1, 1, *x.shape[-2:])
    flat = F.conv2d(F.conv2d(flat, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return flat.view(*x.shape[:2], *flat.shape[-2:])
