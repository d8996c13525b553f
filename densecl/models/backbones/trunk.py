"""Trunk: a classifier of timm without its last layer, one vector an image. For tasks of whole images."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from densecl.errors import SettingError, first_line
from densecl.models.encoders import Encoder, create_timm, on_meta
from densecl.models.network import Backbone, Features
from densecl.models.weights import load_weights, read_weights_file, weights_place

# the hidden layers of torchvision's VGG under timm's names, whose matrices are kernels there
VGG = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}


class Trunk(Backbone):
    """All of a classifier but its last layer: VGG-16 with fc6 and fc7, ResNet-50, DenseNet-121, any of timm.

    The last layer of pretrained weights is kept beside, in `classifier`: the head of a task that is `pretrained`.

    Args:
        encoder: any classifier of timm, such as vgg16, vgg16_bn, resnet50, densenet121; `resnet50.tv_in1k` names
            torchvision's weights.
        weights: "timm", "none" or a file, .safetensors or .pth, as timm or torchvision has it; its classes may be
            others than ImageNet's.
        dropout: before the last layer, and of a VGG between its hidden ones too.
    """

    keeps_classifier = True

    def __init__(self, encoder: str = "resnet50", weights: str = "timm", dropout: float = 0.0):
        super().__init__()
        if not 0 <= dropout < 1:
            raise SettingError(f"trunk(dropout={dropout}) is no share", "give 0 <= dropout < 1")
        net = _classifier(encoder, weights, dropout)
        last = cast(Any, net).get_classifier()
        if not isinstance(last, nn.Linear):
            raise SettingError(f"encoder '{encoder}' does not end with a linear layer", "use one such as resnet50")
        self.channels = last.in_features
        if weights != "none":
            self.classifier = (last.weight.detach().clone(), last.bias.detach().clone())
        cast(Any, net).reset_classifier(0)
        self.encoder = Vector(net, self.channels)

    def forward(self, image: Tensor) -> Features:
        """One vector an image, (B, D, 1, 1)."""
        maps = tuple(self.encoder(image))
        return Features(maps[-1], maps)


class Vector(Encoder):
    """A network of timm whose output is a vector."""

    def __init__(self, net: nn.Module, channels: int):
        super().__init__()
        self.net, self.channels, self.strides = net, (channels,), ()  # a vector has no stride

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`: one map of one place."""
        return [self.net(image)[..., None, None]]


def _classifier(name: str, weights: str, dropout: float) -> nn.Module:
    """A classifier of timm with as many outputs as its weights have; errors as `encoders.create_timm`."""
    place = weights_place(name)
    file = place if weights == "timm" and place.is_file() else Path(weights)
    options: dict[str, Any] = {"drop_rate": dropout}
    if weights == "none" or (weights == "timm" and file is not place):
        return create_timm(name, weights, **options)[0]
    try:
        last = str(cast(Any, on_meta(name)[0]).default_cfg["classifier"])
    except (RuntimeError, AttributeError, KeyError, TypeError) as error:
        raise SettingError(f"encoder '{name}' is no classifier: {first_line(error)}", "use resnet50") from error
    stored = _renamed(read_weights_file(file), last)
    outputs = stored[f"{last}.weight"].shape[0] if f"{last}.weight" in stored else 1000
    net, _ = create_timm(name, "none", num_classes=outputs, **options)
    load_weights(net, file, lambda stored: _renamed(stored, last))
    return net


def _renamed(stored: dict[str, Tensor], last: str) -> dict[str, Tensor]:
    """Names of torchvision's VGG as timm has them."""
    names = VGG if last == "head.fc" and "classifier.0.weight" in stored else {}
    result = {}
    for key, tensor in stored.items():
        layer, _, part = key.rpartition(".")
        if layer in ("classifier.0", "classifier.3") and names and tensor.dim() == 2:
            side = 7 if layer == "classifier.0" else 1
            tensor = tensor.reshape(tensor.shape[0], -1, side, side)
        result[f"{names.get(layer, layer)}.{part}"] = tensor
    return result
