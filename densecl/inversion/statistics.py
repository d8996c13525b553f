"""Distance of the BatchNorm statistics of a batch of images to those of a network's training data."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.errors import SettingError

Reduce = Callable[[Tensor], Tensor]  # the sum of a tensor over all processes
IMAGE_CHANNELS = 3


class Moments(NamedTuple):
    """Mean and biased variance of a layer's input over images and places, (F,) each."""

    mean: Tensor
    variance: Tensor
    layer: _BatchNorm
    first: bool  # it follows a convolution of the image itself


class _Moments(torch.autograd.Function):
    """Mean and biased variance over (0, 2, 3): one pass forward; backward is affine in x, so one pass as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = x if x.dtype == torch.float64 else x.float()
        if x.device.type == "cpu":  # the same numbers as var_mean, which takes 4 to 25 times as long here
            mean, variance = torch.batch_norm_update_stats(wide, None, None, 0.0)
        else:
            variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        n = x.numel() // x.shape[1]
        scale = gradients[1] * (2 / n)
        shift = gradients[0] / n - scale * mean
        shape = (1, -1, 1, 1)
        return torch.addcmul(shift.view(shape).to(x.dtype), x, scale.view(shape).to(x.dtype))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of (B, F, h, w) over images and places, (F,) each, in float32."""
    return _Moments.apply(x)  # type: ignore[return-value]


def matched_layers(network: nn.Module) -> list[_BatchNorm]:
    """The BatchNorms with running statistics.

    Raises:
        SettingError: there is none.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        raise SettingError(
            "DeepInversion matches the running statistics of BatchNorm, and the backbone's encoder has no such layer",
            "use one with BatchNorm: bisenet or deeplabv3 on a ResNet, or unet(norm=batch)",
        )
    return layers


class BatchStatistics:
    """Watches the input of every BatchNorm while it is entered.

    Layers that see maps of one pixel are left out: they have only as many values as there are images. The first layers
    are those that follow a convolution of the image itself; a network with two paths has two.
    """

    def __init__(self, network: nn.Module):
        self.layers = matched_layers(network)
        self.stems = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == IMAGE_CHANNELS]
        self.found: list[Moments] = []
        self._handles: list[Any] = []
        self._first = False

    def __enter__(self) -> "BatchStatistics":
        self._handles = [layer.register_forward_pre_hook(self._look) for layer in self.layers]
        self._handles += [stem.register_forward_hook(self._stem) for stem in self.stems]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self.found = [], []

    def clear(self) -> None:
        """Forget the last forward pass; to be called before each."""
        self.found, self._first = [], False

    def _stem(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._first = True

    def _look(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        first, self._first = self._first, False
        if inputs[0].shape[-2:] != (1, 1):
            self.found.append(Moments(*moments(inputs[0]), module, first))

    def distance(self, first_weight: float = 1.0, share: float = 1.0, reduce: Reduce | None = None) -> Tensor:
        """Sum over layers of |mean - running mean| + |variance - running variance| (Yin et al., CVPR 2020, eq. 4).

        The first layers count `first_weight` times. `share` is that of this process in all images, and `reduce` sums
        over processes.
        """
        found = self.found if reduce is None else _global(self.found, share, reduce)
        terms = []
        for mean, variance, layer, first in found:
            distance = layer_distance(layer, mean, variance)
            terms.append(distance * first_weight if first else distance)
        return torch.stack(terms).sum()


def layer_distance(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> Tensor:
    """|mean - running mean| + |variance - running variance|."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return (mean - layer.running_mean).norm() + (variance - layer.running_var).norm()


def _global(found: list[Moments], share: float, reduce: Reduce) -> list[Moments]:
    """The moments over the images of all processes; each process gets the gradient of its own images."""
    own = torch.cat([torch.cat([m.mean, m.variance + m.mean.square()]) for m in found]) * share
    whole = own + (reduce(own.detach()) - own.detach())
    result = []
    parts = whole.split([2 * len(m.mean) for m in found])
    for m, part in zip(found, parts, strict=True):
        mean, second = part.chunk(2)
        result.append(m._replace(mean=mean, variance=second - mean.square()))
    return result
