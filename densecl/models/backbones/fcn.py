"""FCN-32s: fully convolutional VGG-16, or any timm encoder (Long et al., CVPR 2015)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.encoders import Encoder, build_encoder, create_timm, known_encoder
from densecl.models.heads import pointwise
from densecl.models.network import Backbone, Features
from densecl.models.traced import ACTIVATIONS, last_layers
from densecl.models.weights import load_weights

HIDDEN = 4096  # channels of VGG's two hidden fully connected layers
Upsampling = Literal["bilinear", "learned"]


class FullyConvolutionalVGG(Encoder):
    """VGG (Simonyan & Zisserman, 2014) whose two hidden fully connected layers are convolutions, fc6 and fc7.

    Poolings round up, as in the original, so that no border is lost; fc6 is padded to keep the map's size, where Long
    et al. pad the image by 100 pixels.
    """

    def __init__(self, name: str, weights: str, dropout: float):
        super().__init__()
        created, source = create_timm(name, weights, num_classes=0)
        net: dict[str, nn.Module] = dict(created.named_children())
        classifier = dict(net["pre_logits"].named_children())
        self.features = cast(nn.Sequential, net["features"])
        self.fc6, self.fc7 = cast(nn.Conv2d, classifier["fc1"]), cast(nn.Conv2d, classifier["fc2"])
        self.fc6.padding = (3, 3)
        self.dropout = nn.Dropout(dropout)
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        self.channels, self.strides = (128, 256, 512, HIDDEN), (4, 8, 16, 32)
        if source not in ("timm", "none"):
            load_weights(self, Path(source), rename_classifier)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`: what follows the second, third and fourth pooling, and fc7."""
        x, maps = image, []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        for layer in (self.fc6, self.fc7):
            x = self.dropout(layer(x).relu())
        return [*maps[1:4], x]


def rename_classifier(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The hidden layers of a VGG of torchvision or timm as fc6 and fc7, matrices as kernels of 7x7 and 1x1."""
    names = {"classifier.0": "fc6", "classifier.3": "fc7", "pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7"}
    renamed = {}
    for key, tensor in stored.items():
        layer, _, part = key.rpartition(".")
        name = names.get(layer, layer)
        if name in ("fc6", "fc7") and tensor.dim() == 2:
            size = 7 if name == "fc6" else 1
            tensor = tensor.reshape(tensor.shape[0], -1, size, size)
        renamed[f"{name}.{part}"] = tensor
    return renamed


class LearnedUpsampling(nn.Sequential):
    """1x1 convolution to the outputs, then a transposed convolution of `stride` that starts as bilinear upsampling."""

    def __init__(self, channels: int, outputs: int, stride: int):
        up = nn.ConvTranspose2d(outputs, outputs, 2 * stride, stride, stride // 2, bias=False)
        super().__init__(pointwise(channels, outputs), up)
        with torch.no_grad():
            up.weight.zero_()
            up.weight[range(outputs), range(outputs)] = bilinear_kernel(stride)


def bilinear_kernel(stride: int) -> Tensor:
    """(2 stride, 2 stride): the weights with which a transposed convolution of an even `stride` is bilinear."""
    position = (torch.arange(2 * stride) + 0.5) / stride - 1  # of each pixel from the kernel's centre, in input pixels
    weight = 1 - position.abs()
    return weight[:, None] * weight


class FCN(Backbone):
    """An encoder and nothing else; all new layers are in the head, so what comes pretrained is exactly the encoder.

    On a VGG the encoder ends with its hidden fully connected layers as convolutions. With `upsampling=learned` it is
    the network of Piggyback's section 6 (Mallya et al., ECCV 2018): for 21 classes the head is then 1,892,373
    parameters, the 7.5 MB of "newly added layers" there, and the encoder's 134,248,128 weights give the 17 MB of masks.

    Args:
        encoder: "mini", any VGG, or any encoder of timm with stages.
        weights: "timm", "none" or a file; see `densecl.models.encoders.build_encoder`. VGG takes the files of
            torchvision too.
        upsampling: "bilinear" (the fixed one of FCN-32s) or "learned": a transposed convolution between the outputs of
            a step, which starts as bilinear.
        dropout: behind fc6 and fc7 of a VGG.
        encoder_widths: channels of encoder "mini".
        encoder_options: of the encoder, each written as `encoder.drop_path_rate=0.3`; see `build_encoder`.
    """

    def __init__(
        self,
        encoder: str = "vgg16",
        weights: str = "timm",
        upsampling: Upsampling = "bilinear",
        dropout: float = 0.5,
        encoder_widths: tuple[int, ...] | None = None,
        encoder_options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not 0 <= dropout < 1:
            raise SettingError(f"fcn(dropout={dropout}) is no share", "give 0 <= dropout < 1")
        if upsampling not in ("bilinear", "learned"):
            raise SettingError(f"fcn(upsampling={upsampling}) does not exist", "use bilinear or learned")
        if encoder.startswith("vgg") and encoder_widths is None:
            known_encoder(encoder)
            if encoder_options:
                raise SettingError(f"fcn(encoder={encoder}) has no options of its encoder", "leave out encoder.*")
            self.encoder: Encoder = FullyConvolutionalVGG(encoder, weights, dropout)
            self.nonnegative = True
        else:
            self.encoder = build_encoder(encoder, weights, widths=encoder_widths, options=encoder_options)
            last = last_layers(self.encoder, ACTIVATIONS)[-1]
            self.nonnegative = bool(last) and isinstance(self.encoder.get_submodule(last), nn.ReLU | nn.ReLU6)
        self.channels, self.stride = self.encoder.channels[-1], self.encoder.strides[-1]
        self.learned = upsampling == "learned"

    def build_head(self, channels: int, outputs: int) -> nn.Module:
        """A 1x1 convolution, with its own upsampling by the encoder's stride when that is learned."""
        return LearnedUpsampling(channels, outputs, self.stride) if self.learned else pointwise(channels, outputs)

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size; `encoded` are the encoder's maps from stride 4 on."""
        encoded = tuple(self.encoder(image))
        return Features(encoded[-1], encoded, raw=self.encoder.take_raw(encoded))
