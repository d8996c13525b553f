"""DeepLabV3: dilated encoder of timm and atrous pyramid pooling (Chen et al., 2017)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.encoders import Encoder, build_encoder, dilated_stride, map_norm
from densecl.models.network import Backbone, ConvNormReLU, Features

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # by output stride (section 3.3 of the paper); else as at 16
LEAK = 0.01  # slope of leaky ReLU below 0
Pooling = Literal["concat", "added"]
Last = Literal["none", "3x3"]


class AtrousPyramid(nn.Module):
    """ASPP: a 1x1 convolution, one with holes for each rate and the image's average, concatenated and projected.

    The other arguments are those of `DeepLabV3`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rates: tuple[int, ...],
        joint_norm: bool = False,
        pooling: Pooling = "concat",
        dropout: float = 0.0,
        last: Last = "none",
    ):
        super().__init__()
        own = [(1, 1), *((3, rate) for rate in rates)]  # kernel and dilation
        layers = [ConvNormReLU(inputs, outputs, kernel, dilation=rate) for kernel, rate in own]
        # its BatchNorm sees maps of one pixel, so a training batch needs at least two images
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormReLU(inputs, outputs, 1))
        self.branches = nn.ModuleList([layer[0] for layer in layers] if joint_norm else layers)
        width = len(own) * outputs
        if joint_norm:
            self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.added = pooling == "added"
        if self.added:
            self.pooling.append(nn.Conv2d(outputs, outputs, 1, bias=False))
            self.project: nn.Module = nn.Conv2d(width, outputs, 1, bias=False)
            self.sum = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
        else:
            self.project = ConvNormReLU(width + outputs, outputs, 1)
        self.tail = nn.Sequential(
            *[nn.Dropout(dropout)] * (dropout > 0), *[ConvNormReLU(outputs, outputs)] * (last == "3x3")
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        maps = torch.cat([branch(x) for branch in self.branches], 1)
        if hasattr(self, "norm"):
            maps = self.norm(maps)
        average = self.pooling(x)  # bilinear growth of one pixel is that pixel everywhere
        if self.added:
            return self.tail(self.sum(self.project(maps) + average))
        return self.tail(self.project(torch.cat([maps, average.expand(-1, -1, *maps.shape[2:])], 1)))


def dilate_first_convolutions(encoder: Encoder, name: str) -> None:
    """Give the first 3x3 convolution of each stage of a ResNet the dilation of the stage's others."""
    stages = [module for part, module in encoder.named_modules() if part in ("net.layer3", "net.layer4")]
    if not stages:
        raise SettingError(
            f"deeplabv3(dilate_first=true): encoder '{name}' is no ResNet",
            "use one such as resnet101, or dilate_first=false",
        )
    for stage in stages:
        kernels = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        kernels[0].dilation = kernels[0].padding = kernels[-1].dilation


class DeepLabV3(Backbone):
    """Encoder with holes instead of its last strides, then ASPP; features at the output stride.

    The defaults are the network of MiB, PLOP and most since (ResNet-101, output stride 16, 256 channels) with one
    BatchNorm for each branch and ReLU; the head is a 1x1 convolution right behind ASPP. `preset=mib` is the network in
    the code of MiB, PLOP and most after them, `preset=dkd` that of DKD and STAR, `preset=ssul` that of SSUL and BARM;
    arguments given beside a preset come before it. Swin cannot have holes: its stride is 32, and a LayerNorm stands
    before ASPP, as in CoinSeg and NeST.

    Args:
        encoder: any of timm with stages, or "mini", whose stride is 16 as it is.
        weights: "timm", "none" or a file; see `densecl.models.encoders.build_encoder`.
        output_stride: 16 or 8, of encoders that can have holes (ResNet, ConvNeXt, ...), or the encoder's own, which it
            becomes where it is not named and cannot be 16.
        width: channels of each branch of ASPP and of the features.
        rates: of ASPP; none given: 6, 12, 18, and twice that at output stride 8.
        encoder_widths: channels of encoder "mini".
        dilate_first: give the first 3x3 convolution of a stage with holes the holes of the others, as in MiB's code; in
            timm and torchvision it has those of the stage before. For ResNets.
        act: "relu", or "leaky": slope 0.01 in place of every ReLU, and values below 0 in the features.
        joint_norm: one BatchNorm over all branches with kernels.
        pooling: "concat", or "added": the image's average joins after the projection.
        dropout: share of values dropped after the projection.
        last: "none", or "3x3": a further convolution with BatchNorm and activation.
        head: of each step: "1x1", or "3x3": a 3x3 convolution with BatchNorm and ReLU before it.
        init: of ASPP's weights: "torch"; "xavier": normal, with the gain of leaky ReLU; "kaiming": normal, heads too.
        momentum: of the encoder's BatchNorm; none given: the encoder's own.
        encoder_options: of the encoder, each written as `encoder.drop_path_rate=0.3`; see `build_encoder`.
    """

    decoder_parts = ("pyramid",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mib": {
            "encoder": "resnet101",
            "dilate_first": True,
            "act": "leaky",
            "joint_norm": True,
            "pooling": "added",
            "init": "xavier",
        },
        "dkd": {"encoder": "resnet101.tv_in1k", "dropout": 0.1, "last": "3x3", "init": "kaiming", "momentum": 0.01},
        "ssul": {"encoder": "resnet101.tv_in1k", "dropout": 0.1, "head": "3x3", "init": "kaiming", "momentum": 0.01},
    }

    def __init__(
        self,
        encoder: str = "resnet101",
        weights: str = "timm",
        output_stride: int = 16,
        width: int = 256,
        rates: tuple[int, ...] | None = None,
        encoder_widths: tuple[int, ...] | None = None,
        dilate_first: bool = False,
        act: Literal["relu", "leaky"] = "relu",
        joint_norm: bool = False,
        pooling: Pooling = "concat",
        dropout: float = 0.0,
        last: Last = "none",
        head: Literal["1x1", "3x3"] = "1x1",
        init: Literal["torch", "xavier", "kaiming"] = "torch",
        momentum: float | None = None,
        encoder_options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not (0 <= dropout < 1 and (momentum is None or 0 < momentum <= 1)):
            raise SettingError(
                f"deeplabv3(dropout={dropout}, momentum={momentum}) are no shares", "give numbers in 0..1"
            )
        rates = RATES.get(output_stride, RATES[16]) if rates is None else rates
        if width < 1 or not rates or min(rates) < 1:
            raise SettingError(f"deeplabv3(width={width}, rates={rates}) makes no network", "give positive numbers")
        self.encoder = build_encoder(
            encoder, weights, widths=encoder_widths, output_stride=output_stride, options=encoder_options
        )
        if dilate_first:
            dilate_first_convolutions(self.encoder, encoder)
        self.norm = map_norm(self.encoder, -1)
        self.pyramid = AtrousPyramid(self.encoder.channels[-1], width, rates, joint_norm, pooling, dropout, last)
        self.channels, self.init, self.nonnegative = width, init, act == "relu"
        self.deep_head = head == "3x3"
        if act == "leaky":
            _replace_relu(self)
        for module in self.encoder.modules():
            if isinstance(module, nn.BatchNorm2d) and momentum is not None:
                module.momentum = momentum
        for module in self.pyramid.modules():
            if isinstance(module, nn.Conv2d):
                self._start(module)

    def _start(self, convolution: nn.Conv2d) -> None:
        if self.init == "xavier":
            nn.init.xavier_normal_(convolution.weight, nn.init.calculate_gain("leaky_relu", LEAK))
        elif self.init == "kaiming":
            nn.init.kaiming_normal_(convolution.weight)

    @classmethod
    def settled(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The output stride of an encoder that cannot have holes."""
        if "output_stride" in arguments:
            return {}
        encoder = arguments.get("encoder", "resnet101")
        return {"output_stride": dilated_stride(encoder, 16, arguments.get("encoder_options"))}

    def build_head(self, channels: int, outputs: int) -> nn.Module:
        """A 1x1 convolution, with `head=3x3` behind a 3x3 one with BatchNorm and ReLU."""
        last = nn.Conv2d(channels, outputs, 1)
        head = nn.Sequential(ConvNormReLU(channels, channels), last) if self.deep_head else last
        for module in head.modules() if self.init == "kaiming" else ():
            if isinstance(module, nn.Conv2d):
                self._start(module)
        return head

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size; `encoded` are the encoder's stages from stride 4 on."""
        encoded = tuple(self.encoder(image))
        return Features(self.pyramid(self.norm(encoded[-1])), encoded, raw=self.encoder.take_raw(encoded))


def _replace_relu(module: nn.Module) -> None:
    """Put leaky ReLU in place of every ReLU below a module."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.LeakyReLU(LEAK, child.inplace))
        else:
            _replace_relu(child)
