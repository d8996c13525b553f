"""SegFormer's all-MLP decoder on any encoder (Xie et al., NeurIPS 2021)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.encoders import build_encoder
from densecl.models.network import upsample
from densecl.models.pyramid import PyramidBackbone


class AllMLPDecoder(nn.Module):
    """Maps linear to one width, grown to the finest one and mixed by a 1x1 convolution with BatchNorm and ReLU.

    The mixing of concatenated maps is the sum of a 1x1 convolution of each, and such convolutions commute with bilinear
    growth: here each map is mixed before it grows, which needs a part of the memory.

    Args:
        channels: of each map, shallow to deep.
        width: channels of the result.
        dropout: share of its channels that are dropped.
    """

    def __init__(self, channels: Sequence[int], width: int, dropout: float):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.Conv2d(width, width, 1, bias=False)) for c in channels
        )
        self.tail = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Dropout2d(dropout))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, channels[i], h_i, w_i), the finest one first, to (B, width, h_0, w_0)."""
        total, *coarser = (branch(x) for branch, x in zip(self.branches, maps, strict=True))
        for x in coarser:
            total = total + upsample(x, total)
        return self.tail(total)


class AllMLP(PyramidBackbone):
    """A pyramid encoder and SegFormer's decoder; features at the stride of the encoder's finest map, 4 mostly.

    The paper's encoder, MiT, is not in timm; PVTv2, from which it comes, is. With the defaults the decoder is that of
    SegFormer-B2 to B5; B0 and B1 have `width=256`. For images of some 48 pixels: `allmlp(encoder=mini_swin, width=64)`.

    Args:
        encoder: any of timm with stages (`pvt_v2_b2`, `swin_tiny_patch4_window7_224`, `convnext_tiny`, `resnet50`), or
            "mini", "mini_swin".
        weights: "timm", "none" or a file; see `densecl.models.encoders.build_encoder`.
        width: channels of each map in the decoder, and of the features.
        dropout: share of the features' channels that are dropped.
        encoder_widths: channels of encoder "mini".
        encoder_options: of the encoder, each written as `encoder.drop_path_rate=0.3`; see `build_encoder`.
    """

    def __init__(
        self,
        encoder: str = "pvt_v2_b2",
        weights: str = "timm",
        width: int = 768,
        dropout: float = 0.1,
        encoder_widths: tuple[int, ...] | None = None,
        encoder_options: Mapping[str, Any] | None = None,
    ):
        if width < 1 or not 0 <= dropout < 1:
            raise SettingError(
                f"allmlp(width={width}, dropout={dropout}) makes no network", "give width >= 1 and 0 <= dropout < 1"
            )
        made = build_encoder(encoder, weights, widths=encoder_widths, options=encoder_options)
        super().__init__(made, AllMLPDecoder(made.channels, width, dropout), width)
