"""Encoders: image to maps of growing stride. Any encoder of timm, and a small one for small images."""

import contextlib
import copy
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from densecl.errors import DataError, SettingError, UnknownNameError
from densecl.models.network import ConvNormReLU
from densecl.models.weights import first_line, load_weights, quiet_hub, weights_place

FINEST = 4  # strides below are left out: their maps are large and no method here reads them
ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")  # modules that define them


class Encoder(nn.Module):
    """Image (B, 3, H, W) to maps (B, channels[i], ~H / strides[i], ~W / strides[i]), shallow to deep."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    raw_names: tuple[str, ...] = ()  # activations whose inputs are kept

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps."""
        raise NotImplementedError

    def keep_raw(self) -> None:
        """Keep each map as it is before its activation, for `take_raw`; refused where there is none."""
        if self.raw_names:
            return
        names = last_activations(self)
        if "" in names or len(set(names)) < len(names):
            raise SettingError(
                "the encoder has no activation at the end of each stage, and the method needs the maps before it",
                "use one such as resnet50 or mini",
            )
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(self.get_submodule(parent), child, KeptInput(self.get_submodule(name)))
        self.raw_names = tuple(names)

    def take_raw(self) -> tuple[Tensor, ...]:
        """The maps of the last forward pass before their activations; none without `keep_raw`."""
        return tuple(cast(KeptInput, self.get_submodule(name)).take() for name in self.raw_names)


class KeptInput(nn.Module):
    """An activation, no longer in place, that keeps its last input until it is taken."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.activation = activation
        if hasattr(activation, "inplace"):
            activation.inplace = False  # pyright: ignore[reportArgumentType]
        self.input: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The activation of `x`."""
        self.input = x
        return self.activation(x)

    def take(self) -> Tensor:
        """The last input, which is not kept any longer."""
        taken, self.input = self.input, None
        return cast(Tensor, taken)


def last_activations(encoder: Encoder) -> list[str]:
    """Name of the activation that each map comes out of, "" for a map of another layer; nothing is computed."""
    traced = copy.deepcopy(encoder).to("meta").eval()
    outputs: dict[str, Tensor] = {}
    for name, module in traced.named_modules():
        if type(module).__module__.startswith(ACTIVATIONS):
            module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.update({name: output}))
    try:
        maps = traced(torch.empty(1, 3, 64, 64, device="meta"))
    except (AssertionError, RuntimeError):  # an encoder for images of one size
        return [""] * len(encoder.channels)
    return [next((name for name, output in outputs.items() if output is x), "") for x in maps]


class TimmEncoder(Encoder):
    """An encoder of timm cut into stages by `features_only`."""

    def __init__(self, net: nn.Module, channels: Sequence[int], strides: Sequence[int]):
        super().__init__()
        self.net, self.channels, self.strides = net, tuple(channels), tuple(strides)
        self.channels_behind = getattr(net, "output_fmt", "NCHW") == "NHWC"  # some transformers

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        maps = self.net(image)
        return [x.permute(0, 3, 1, 2) for x in maps] if self.channels_behind else maps


class MiniBlock(nn.Module):
    """Two 3x3 convolutions of stride 2 and 1 beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = ConvNormReLU(inputs, outputs, stride=2)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / 2, W / 2), rounded up."""
        return self.activation(self.second(self.first(x)) + self.shortcut(x))


class Mini(Encoder):
    """A residual encoder for images of some 48 pixels: a stem and three blocks, maps of stride 4, 8 and 16."""

    def __init__(self, widths: Sequence[int] = (32, 48, 96, 160)):
        super().__init__()
        if len(widths) != 4 or min(widths) < 1:
            raise SettingError(f"widths of encoder 'mini' are {tuple(widths)}", "give four positive numbers")
        self.stem = ConvNormReLU(3, widths[0], stride=2)
        self.blocks = nn.ModuleList(MiniBlock(i, o) for i, o in pairwise(widths))
        self.channels, self.strides = tuple(widths[1:]), (4, 8, 16)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        x, maps = self.stem(image), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


def build_encoder(
    name: str, weights: str = "timm", *, widths: Sequence[int] | None = None, output_stride: int | None = None
) -> Encoder:
    """An encoder by name.

    Args:
        name: "mini" or any encoder of timm that knows `features_only`.
        weights: "timm" (pretrained as timm has it; "mini" starts from random weights), "none" (random) or a file:
            .safetensors, or .pth read with `weights_only=True`. A file may hold more than the encoder (its classifier),
            and `module.` before its names.
        widths: channels of the stem and of the three blocks of "mini".
        output_stride: of the deepest maps: stages that would go below are dilated instead (Chen et al., 2017), and all
            stages of stride 4 and more are returned, several of them with the same stride.

    UnknownNameError or SettingError if timm has no such encoder or stages; DataError as `load_weights`.
    """
    if name == "mini":
        if output_stride not in (None, 16):
            raise SettingError(f"encoder 'mini' has output stride 16, not {output_stride}", "choose one of timm")
        encoder = net = Mini() if widths is None else Mini(widths)
    else:
        if widths is not None:
            raise SettingError(f"encoder '{name}' has its own widths", "encoder_widths is for encoder=mini")
        channels, strides, options = _stages(name, output_stride)
        net, weights = create_timm(name, weights, features_only=True, **options)
        encoder = TimmEncoder(net, channels, strides)
    if weights not in ("timm", "none"):
        load_weights(net, Path(weights))
    return encoder


def _stages(name: str, output_stride: int | None) -> tuple[list[int], list[int], dict[str, Any]]:
    """Channels and strides of the wanted stages of timm's encoder, and the options that cut it into these."""
    import timm

    base = known_encoder(name)
    options: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}
    try:
        with torch.device("meta"):  # its shape alone: no memory, no random numbers
            info: Any = timm.create_model(base, features_only=True, pretrained=False, **options).feature_info
        strides, channels = list(info.reduction()), list(info.channels())
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError) as error:
        what = f"have output stride {output_stride}" if options else "be cut into stages"
        message = f"encoder '{name}' cannot {what}: {first_line(error)}"
        raise SettingError(message, "choose a convolutional one such as resnet50") from error
    if output_stride not in (None, strides[-1]):
        raise SettingError(f"encoder '{name}' ends at stride {strides[-1]}, not {output_stride}", "choose another one")
    indices = [i for i, stride in enumerate(strides) if stride >= FINEST]
    if output_stride is None:  # the deepest stage of each stride
        indices = [i for i in indices if strides[i] not in strides[i + 1 :]]
    return [channels[i] for i in indices], [strides[i] for i in indices], {**options, "out_indices": tuple(indices)}


def known_encoder(name: str) -> str:
    """The name of a network of timm without what follows its dot, the name of pretrained weights."""
    import timm

    base = name.partition(".")[0]
    if not timm.is_model(base):
        known = ["mini", *timm.list_models()]
        near = get_close_matches(base, known, n=5, cutoff=0.4) or ["mini", "resnet18", "resnet50"]
        raise UnknownNameError("encoder", name, near, "timm.list_models() has all")
    return base


def create_timm(name: str, weights: str, **options: Any) -> tuple[nn.Module, str]:
    """A network of timm, and "timm" if it has its weights, "none", or the file from which they are still to be read."""
    import timm

    place = weights_place(name)
    if weights == "timm" and place.is_file():
        weights = str(place)
    try:
        with quiet_hub() if weights == "timm" else contextlib.nullcontext():
            return timm.create_model(name, pretrained=weights == "timm", **options), weights
    except Exception as error:  # timm and the hub raise what they like; that the name exists was seen before
        if weights != "timm":
            raise SettingError(f"encoder '{name}' cannot be built: {first_line(error)}") from error
        raise DataError(
            f"cannot fetch timm's weights of encoder '{name}': {first_line(error)}",
            f"put its file at {place}, or use --weights FILE or --weights none",
        ) from error
