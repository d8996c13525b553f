"""BiSeNet: spatial and context paths, on any timm encoder (Yu et al., ECCV 2018).

In the form of Di Salvo et al. (2021): all classifiers outside the backbone.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.encoders import build_encoder
from densecl.models.network import Backbone, ConvNormReLU, Features, upsample


class SpatialPath(nn.Sequential):
    """Convolutions of stride 2 that keep detail; then, with `outputs`, a 1x1 one to that many channels."""

    def __init__(self, widths: tuple[int, ...], outputs: int):
        layers = [ConvNormReLU(i, o, stride=2) for i, o in zip((3, *widths[:-1]), widths, strict=True)]
        super().__init__(*layers, *([ConvNormReLU(widths[-1], outputs, 1)] if outputs else []))
        self.channels = outputs or widths[-1]


def gate(*layers: nn.Module) -> nn.Sequential:
    """Global average, layers, sigmoid: a factor for each channel."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers, nn.Sigmoid())


class AttentionRefinement(nn.Module):
    """x * sigmoid(BN(conv1x1(GAP(x)))): the BatchNorm sees one pixel, so a training batch needs two images."""

    def __init__(self, channels: int):
        super().__init__()
        self.attention = gate(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        return x * self.attention(x)


class WideContext(nn.Module):
    """Both maps refined at the encoder's width, the deeper one times its global average (Di Salvo et al.)."""

    def __init__(self, channels: tuple[int, int]):
        super().__init__()
        self.refine = nn.ModuleList(AttentionRefinement(c) for c in channels)
        self.auxiliary_channels = channels
        self.channels = sum(channels)

    def forward(self, middle: Tensor, deep: Tensor, like: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The context (B, channels, h, w) at the size of `like`, and the two maps for the auxiliary heads."""
        tail = deep.mean((2, 3), keepdim=True)
        cx1, cx2 = self.refine[0](middle), self.refine[1](deep) * tail
        maps = upsample(cx1, like), upsample(cx2, like)
        return torch.cat(maps, 1), maps


class NarrowContext(nn.Module):
    """Both maps brought to few channels and summed from deep to middle: cheaper; a batch of one trains."""

    def __init__(self, channels: tuple[int, int], width: int):
        super().__init__()
        self.narrow = nn.ModuleList(ConvNormReLU(c, width) for c in channels)
        self.attention = nn.ModuleList(gate(nn.Conv2d(width, width, 1)) for _ in channels)
        self.tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels[1], width, 1), nn.ReLU(inplace=True))
        self.smooth = nn.ModuleList(ConvNormReLU(width, width) for _ in channels)
        self.auxiliary_channels = (width, width)
        self.channels = width

    def forward(self, middle: Tensor, deep: Tensor, like: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `WideContext`."""
        narrow = [layer(x) for layer, x in zip(self.narrow, (middle, deep), strict=True)]
        refined = [x * attention(x) for x, attention in zip(narrow, self.attention, strict=True)]
        cx2 = self.smooth[1](F.interpolate(refined[1] + self.tail(deep), size=middle.shape[-2:]))
        cx1 = self.smooth[0](F.interpolate(refined[0] + cx2, size=like.shape[-2:]))
        return cx1, (cx1, cx2)


class FeatureFusion(nn.Module):
    """f = conv-BN-ReLU(concat); f + f * sigmoid(conv(ReLU(conv(GAP(f)))))."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.mix = ConvNormReLU(inputs, outputs, kernel)
        first, second = (nn.Conv2d(outputs, outputs, 1) for _ in range(2))
        self.attention = gate(first, nn.ReLU(inplace=True), second)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Two maps of one size to (B, outputs, h, w)."""
        mixed = self.mix(torch.cat([spatial, context], 1))
        return mixed + mixed * self.attention(mixed)


class BiSeNet(Backbone):
    """A shallow spatial path beside a deep context path, fused; features at the spatial path's stride.

    The defaults are the paper's network with ResNet-50. For images of some 48 pixels:
    `bisenet(encoder=mini, spatial=(24, 48), spatial_width=64, context_width=64, width=128, fusion=1)`.

    Args:
        encoder: "mini" or any of timm with stages; its two deepest maps (1/16 and 1/32, mini: 1/8 and 1/16) are used.
        weights: "timm", "none" or a file; see `densecl.models.encoders.build_encoder`.
        width: channels of the fused features.
        spatial: channels of the spatial path's convolutions of stride 2; three give stride 8, two stride 4.
        spatial_width: channels of a 1x1 convolution after them, 0 for none.
        fusion: kernel of the fusion's convolution, 3 or 1. With 3 it is more than half of the network's arithmetic.
        context_width: 0 refines the context at the encoder's width and concatenates (Di Salvo et al.); more brings it
            to that many channels and sums from deep to shallow.
        auxiliary: supervise the context by two auxiliary heads in training.
        encoder_widths: channels of encoder "mini".
        encoder_options: of the encoder, each written as `encoder.drop_path_rate=0.3`; see `build_encoder`.
    """

    decoder_parts = ("context", "fusion")
    nonnegative = True

    def __init__(
        self,
        encoder: str = "resnet50",
        weights: str = "timm",
        width: int = 256,
        spatial: tuple[int, ...] = (64, 128, 256),
        spatial_width: int = 0,
        fusion: int = 3,
        context_width: int = 0,
        auxiliary: bool = True,
        encoder_widths: tuple[int, ...] | None = None,
        encoder_options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if width < 1 or spatial_width < 0 or context_width < 0 or not spatial or min(spatial) < 1:
            widths = f"width={width}, spatial={spatial}, spatial_width={spatial_width}, context_width={context_width}"
            raise SettingError(f"bisenet({widths}) has a width that is no number of channels", "give positive numbers")
        if fusion < 1 or fusion % 2 == 0:
            raise SettingError(f"bisenet(fusion={fusion}): the kernel must be odd", "use 3 or 1")
        self.encoder = build_encoder(encoder, weights, widths=encoder_widths, options=encoder_options)
        if len(self.encoder.channels) < 2:
            raise SettingError(
                f"encoder '{encoder}' has maps of stride {self.encoder.strides} only, bisenet needs two",
                "choose a convolutional one such as resnet50",
            )
        middle, deep = self.encoder.channels[-2:]
        self.spatial = SpatialPath(spatial, spatial_width)
        self.context = NarrowContext((middle, deep), context_width) if context_width else WideContext((middle, deep))
        self.fusion = FeatureFusion(self.spatial.channels + self.context.channels, width, fusion)
        self.channels = width
        self.auxiliary_channels = self.context.auxiliary_channels if auxiliary else ()

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size; `encoded` are the encoder's maps from stride 4 on."""
        encoded = tuple(self.encoder(image))
        spatial = self.spatial(image)
        context, maps = self.context(encoded[-2], encoded[-1], like=spatial)
        auxiliary = maps if self.training and self.auxiliary_channels else ()
        return Features(self.fusion(spatial, context), encoded, auxiliary, self.encoder.take_raw(encoded))
