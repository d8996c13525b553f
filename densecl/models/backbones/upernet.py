"""UPerNet on any encoder: pooled pyramid, then a pyramid of features from deep to fine (Xiao et al., ECCV 2018)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.encoders import FINEST, build_encoder
from densecl.models.network import ConvNormReLU, upsample
from densecl.models.pyramid import PyramidBackbone


class PooledPyramid(nn.Module):
    """The deepest map beside its averages over grids of `bins` x `bins` cells, mixed by a 3x3 convolution (PSPNet)."""

    def __init__(self, inputs: int, width: int, bins: Sequence[int]):
        super().__init__()
        # BatchNorm sees as many values as there are cells, so a training batch needs at least two images
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), ConvNormReLU(inputs, width, 1)) for cells in bins
        )
        self.mix = ConvNormReLU(inputs + len(bins) * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, width, h, w)."""
        return self.mix(torch.cat([x, *(upsample(branch(x), x) for branch in self.branches)], 1))


class FeaturePyramid(nn.Module):
    """Each map is brought to one width, gets the sum of those below it, and all are mixed at the size of the finest.

    Args:
        channels: of each map, shallow to deep.
        width: channels of each level and of the result.
        bins: sides of the grids that the deepest map is averaged over.
        dropout: share of the result's channels that are dropped.
    """

    def __init__(self, channels: Sequence[int], width: int, bins: Sequence[int], dropout: float):
        super().__init__()
        *finer, deepest = channels
        self.pooled = PooledPyramid(deepest, width, bins)
        self.lateral = nn.ModuleList(ConvNormReLU(c, width, 1) for c in finer)
        self.smooth = nn.ModuleList(ConvNormReLU(width, width) for _ in finer)
        self.mix = nn.Sequential(ConvNormReLU(len(channels) * width, width), nn.Dropout2d(dropout))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, channels[i], h_i, w_i), the finest one first, to (B, width, h_0, w_0)."""
        sums = [self.pooled(maps[-1])]  # deep to fine
        for lateral, finer in zip(reversed(self.lateral), reversed(maps[:-1]), strict=True):
            x = lateral(finer)
            sums.append(x + upsample(sums[-1], x))
        deepest, *finer = sums
        levels = [deepest, *(smooth(x) for smooth, x in zip(reversed(self.smooth), finer, strict=True))]
        return self.mix(torch.cat([upsample(level, levels[-1]) for level in reversed(levels)], 1))


class UPerNet(PyramidBackbone):
    """A pyramid encoder, a pooled pyramid on its deepest map, and a pyramid of features at the finest map's stride.

    For small photographs and an encoder that is not trained, `finest=16` leaves out the shallow maps, on which most
    time is spent.

    Args:
        encoder: any of timm with stages (`swin_tiny_patch4_window7_224`, `convnext_tiny`, `resnet50`), or "mini",
            "mini_swin".
        weights: "timm", "none" or a file; see `densecl.models.encoders.build_encoder`.
        width: channels of each level and of the features.
        finest: stride below which no map of the encoder is used: 4, 8, 16 or 32.
        bins: sides of the grids that the deepest map is averaged over.
        dropout: share of the features' channels that are dropped.
        encoder_widths: channels of encoder "mini".
        encoder_options: of the encoder, each written as `encoder.drop_path_rate=0.3`; see `build_encoder`.
    """

    def __init__(
        self,
        encoder: str = "swin_tiny_patch4_window7_224",
        weights: str = "timm",
        width: int = 512,
        finest: int = 4,
        bins: tuple[int, ...] = (1, 2, 3, 6),
        dropout: float = 0.1,
        encoder_widths: tuple[int, ...] | None = None,
        encoder_options: Mapping[str, Any] | None = None,
    ):
        if width < 1 or finest < FINEST or not bins or min(bins) < 1 or not 0 <= dropout < 1:
            raise SettingError(
                f"upernet(width={width}, finest={finest}, bins={bins}, dropout={dropout}) makes no network",
                f"give width >= 1, finest >= {FINEST}, bins >= 1 and 0 <= dropout < 1",
            )
        made = build_encoder(encoder, weights, widths=encoder_widths, finest=finest, options=encoder_options)
        if not made.channels:
            raise SettingError(f"upernet(finest={finest}): encoder '{encoder}' has no map of that stride", "give less")
        super().__init__(made, FeaturePyramid(made.channels, width, bins, dropout), width)
