"""PatchGAN: judges overlapping patches of an image (Isola et al., CVPR 2017)."""

import torch
from torch import Tensor, nn

from densecl.errors import SettingError


class PatchGAN(nn.Module):
    """4x4 convolutions C64-C128-C256-C512-1 with leaky ReLUs, for RGB images.

    Channels double from `width` up to eight times it. With three of stride 2 (`strided`) a logit sees 70x70 pixels,
    with two 34x34, with one 16x16. Instance normalisation (without scale and shift) in all but the first and the last
    layer, so that no statistics are kept and samples do not see each other. Weights start from N(0, 0.02), as in the
    paper.
    """

    def __init__(self, width: int = 64, strided: int = 3):
        super().__init__()
        if min(width, strided) < 1:
            raise SettingError(f"PatchGAN({width}, {strided}) makes no network", "both must be at least 1")
        channels = [width * min(2**k, 8) for k in range(strided + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for k in range(1, strided + 1):
            stride = 2 if k < strided else 1
            convolution = nn.Conv2d(channels[k - 1], channels[k], 4, stride, 1, bias=False)
            layers += [convolution, nn.InstanceNorm2d(channels[k]), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, 1, 1))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.smallest = 2 ** (strided + 1) + 2**strided  # below, a normalised map would be of a single pixel

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, 1, h, w) of the patches of (B, 3, H, W); H and W at least `smallest`."""
        return self.layers(image)


def initialised(seed: int, width: int = 64, strided: int = 3) -> PatchGAN:
    """A PatchGAN whose weights depend on the seed alone; the global generator stays what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PatchGAN(width, strided)
