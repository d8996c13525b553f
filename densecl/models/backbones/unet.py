"""U-Net: encoder-decoder with skips (Ronneberger et al., MICCAI 2015)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.network import Backbone, Features, Norm, norm_layer


class DoubleConv(nn.Sequential):
    """Twice 3x3 convolution with bias, ReLU, normalisation, in this order."""

    def __init__(self, inputs: int, outputs: int, norm: Norm):
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [nn.Conv2d(channels, outputs, 3, 1, 1), nn.ReLU(inplace=True), norm_layer(norm, outputs)]
        super().__init__(*layers)


class UNet(Backbone):
    """Encoder of `depth` poolings, decoder of transposed convolutions with skips; features at input resolution.

    Channels are width * (1, 2, 4, .., 2^(depth-1), 2^(depth-1)) down, mirrored up: 64-128-256-512-512 by default, which
    with a 1x1 head of 81 classes and instance normalisation is 14,786,193 parameters, the 56.4 MiB of Matsumoto and
    Yanai's experiments (2018).
    Sizes that poolings do not divide are rounded up on the way down and cropped to the skip's size on the way up.

    Args:
        width: channels of the first stage.
        depth: number of poolings.
        norm: "batch" or "instance" (without scale and shift). Instance normalisation needs a deepest map of more than
            one pixel in training.
        decoder_norm: of the decoder; None: as `norm`. Instance normalisation there takes from each image how much of a
            class it has, and segmentation learns more slowly.
    """

    decoder_parts = ("up", "merge")

    def __init__(self, width: int = 64, depth: int = 4, norm: Norm = "batch", decoder_norm: Norm | None = None):
        super().__init__()
        if width < 1 or depth < 1:
            raise SettingError(f"unet(width={width}, depth={depth}) makes no network", "both must be at least 1")
        skips = [width << level for level in range(depth)]  # 64 128 256 512
        stages = [*skips, skips[-1]]
        self.down = nn.ModuleList(DoubleConv(i, o, norm) for i, o in zip([3, *stages[:-1]], stages, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, c, 2, 2) for c in reversed(skips))
        outputs = [width, *skips[:-1]]  # of the decoder's stages, shallow to deep
        self.merge = nn.ModuleList(
            DoubleConv(2 * c, o, decoder_norm or norm) for c, o in zip(reversed(skips), reversed(outputs), strict=True)
        )
        self.channels = width

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size; `encoded` are the depth + 1 encoder stages."""
        encoded: list[Tensor] = []
        for stage in self.down:
            encoded.append(stage(F.max_pool2d(encoded[-1], 2, ceil_mode=True) if encoded else image))
        x = encoded[-1]
        for up, merge, skip in zip(self.up, self.merge, reversed(encoded[:-1]), strict=True):
            x = up(x)[..., : skip.shape[-2], : skip.shape[-1]]
            x = merge(torch.cat([skip, x], 1))
        return Features(x, tuple(encoded))
