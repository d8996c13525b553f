"""DeepLabV3 (Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017)."""

import torch
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.encoders import build_encoder
from densecl.models.layers import ConvNormReLU
from densecl.models.network import Backbone, Features

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # by output stride (section 3.3 of the paper)


class AtrousBranch(nn.Sequential):
    """3x3 convolution with holes of `rate`, BatchNorm, ReLU; keeps the size."""

    def __init__(self, inputs: int, outputs: int, rate: int):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ImagePooling(nn.Sequential):
    """Global average, 1x1 convolution, BatchNorm, ReLU.

    Its BatchNorm sees maps of one pixel, so a training batch needs at least two images.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.AdaptiveAvgPool2d(1), ConvNormReLU(inputs, outputs, 1))


class AtrousPyramid(nn.Module):
    """ASPP: a 1x1 convolution, one with holes for each rate and the image's average, concatenated and projected."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...]):
        super().__init__()
        self.branches = nn.ModuleList(
            [ConvNormReLU(inputs, outputs, 1), *(AtrousBranch(inputs, outputs, rate) for rate in rates)]
        )
        self.pooling = ImagePooling(inputs, outputs)
        self.project = ConvNormReLU((len(rates) + 2) * outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        maps = [branch(x) for branch in self.branches]
        average = self.pooling(x).expand_as(maps[0])  # bilinear growth of one pixel is that pixel everywhere
        return self.project(torch.cat([*maps, average], 1))


class DeepLabV3(Backbone):
    """Encoder with holes instead of its last strides, then ASPP; features at the output stride.

    Defaults: the network of MiB, PLOP and most since (ResNet-101, output stride 16, 256 channels), with BatchNorm where
    their code has in-place activated BatchNorm with leaky ReLU. The head is a 1x1 convolution right behind ASPP.

    Args:
        encoder: any of timm that knows `output_stride` (ResNet, ConvNeXt, EfficientNet, ...), or "mini", whose stride
            is 16 as it is.
        weights: "timm", "none" or a file; see `densecl.models.encoders.build_encoder`.
        output_stride: 16 or 8.
        width: channels of each branch of ASPP and of the features.
        rates: of ASPP; none given: 6, 12, 18 at output stride 16, twice that at 8.
        encoder_widths: channels of encoder "mini".

    Raises:
        SettingError: a value that makes no network, or an encoder without that output stride.
        UnknownNameError: no such encoder.
        DataError: weights that cannot be fetched, read or do not fit.
    """

    decoder_parts = ("pyramid",)

    def __init__(
        self,
        encoder: str = "resnet101",
        weights: str = "timm",
        output_stride: int = 16,
        width: int = 256,
        rates: tuple[int, ...] | None = None,
        encoder_widths: tuple[int, ...] | None = None,
    ):
        super().__init__()
        if output_stride not in RATES:
            raise SettingError(f"deeplabv3(output_stride={output_stride}) does not exist", "use 16 or 8")
        rates = RATES[output_stride] if rates is None else rates
        if width < 1 or not rates or min(rates) < 1:
            raise SettingError(f"deeplabv3(width={width}, rates={rates}) makes no network", "give positive numbers")
        self.encoder = build_encoder(encoder, weights, widths=encoder_widths, output_stride=output_stride)
        self.pyramid = AtrousPyramid(self.encoder.channels[-1], width, rates)
        self.channels = width

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size; `encoded` are the encoder's stages from stride 4 on."""
        encoded = tuple(self.encoder(image))
        return Features(self.pyramid(encoded[-1]), encoded)
