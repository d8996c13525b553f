"""DeepLabV3: dilated encoder of timm and atrous pyramid pooling (Chen et al., 2017)."""

import torch
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.encoders import Encoder, build_encoder
from densecl.models.network import Backbone, ConvNormReLU, Features

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # by output stride (section 3.3 of the paper)


class AtrousPyramid(nn.Module):
    """ASPP: a 1x1 convolution, one with holes for each rate and the image's average, concatenated and projected."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...]):
        super().__init__()
        dilated = (ConvNormReLU(inputs, outputs, dilation=rate) for rate in rates)
        self.branches = nn.ModuleList([ConvNormReLU(inputs, outputs, 1), *dilated])
        # its BatchNorm sees maps of one pixel, so a training batch needs at least two images
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormReLU(inputs, outputs, 1))
        self.project = ConvNormReLU((len(rates) + 2) * outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        maps = [branch(x) for branch in self.branches]
        average = self.pooling(x).expand_as(maps[0])  # bilinear growth of one pixel is that pixel everywhere
        return self.project(torch.cat([*maps, average], 1))


def dilate_first_convolutions(encoder: Encoder, name: str) -> None:
    """Give the first 3x3 convolution of each stage of a ResNet the dilation of the stage's others."""
    stages = [module for part, module in encoder.named_modules() if part in ("net.layer3", "net.layer4")]
    if not stages:
        raise SettingError(f"deeplabv3(dilate_first=true): encoder '{name}' is no ResNet", "use one such as resnet101")
    for stage in stages:
        kernels = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        kernels[0].dilation = kernels[0].padding = kernels[-1].dilation


class DeepLabV3(Backbone):
    """Encoder with holes instead of its last strides, then ASPP; features at the output stride.

    The defaults are the network of MiB, PLOP and most since (ResNet-101, output stride 16, 256 channels), with
    BatchNorm where their code has in-place activated BatchNorm with leaky ReLU. The head is a 1x1 convolution right
    behind ASPP.

    Args:
        encoder: any of timm that knows `output_stride` (ResNet, ConvNeXt, EfficientNet, ...), or "mini", whose stride
            is 16 as it is.
        weights: "timm", "none" or a file; see `densecl.models.encoders.build_encoder`.
        output_stride: 16 or 8.
        width: channels of each branch of ASPP and of the features.
        rates: of ASPP; none given: 6, 12, 18 at output stride 16, twice that at 8.
        encoder_widths: channels of encoder "mini".
        dilate_first: give the first 3x3 convolution of a stage with holes the holes of the others, as in MiB's code; in
            timm and torchvision it has those of the stage before. For ResNets.
    """

    decoder_parts = ("pyramid",)
    nonnegative = True

    def __init__(
        self,
        encoder: str = "resnet101",
        weights: str = "timm",
        output_stride: int = 16,
        width: int = 256,
        rates: tuple[int, ...] | None = None,
        encoder_widths: tuple[int, ...] | None = None,
        dilate_first: bool = False,
    ):
        super().__init__()
        if output_stride not in RATES:
            raise SettingError(f"deeplabv3(output_stride={output_stride}) does not exist", "use 16 or 8")
        rates = RATES[output_stride] if rates is None else rates
        if width < 1 or not rates or min(rates) < 1:
            raise SettingError(f"deeplabv3(width={width}, rates={rates}) makes no network", "give positive numbers")
        self.encoder = build_encoder(encoder, weights, widths=encoder_widths, output_stride=output_stride)
        if dilate_first:
            dilate_first_convolutions(self.encoder, encoder)
        self.pyramid = AtrousPyramid(self.encoder.channels[-1], width, rates)
        self.channels = width

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size; `encoded` are the encoder's stages from stride 4 on."""
        encoded = tuple(self.encoder(image))
        return Features(self.pyramid(encoded[-1]), encoded, raw=self.encoder.take_raw())
