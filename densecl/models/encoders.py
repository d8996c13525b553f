"""Encoders: image to maps of growing stride. Any encoder of timm, and small ones for small images."""

import contextlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl.errors import DataError, SettingError, UnknownNameError, first_line
from densecl.models.network import ConvNormReLU

FINEST = 4  # strides below are left out: their maps are large and no method here reads them
# what a user may say of an encoder of timm: sizes, rates and shapes, nothing that reads a file
OPTIONS = (
    "attn_drop_rate",
    "class_token",
    "depth",
    "depths",
    "dims",
    "drop_path_rate",
    "embed_dim",
    "embed_dims",
    "img_size",
    "mlp_ratio",
    "mlp_ratios",
    "num_heads",
    "patch_size",
    "proj_drop_rate",
    "reg_tokens",
    "window_size",
)
ANY_SIZE = ({"dynamic_img_size": True}, {"strict_img_size": False})  # in timm; Swin of versions before 1.0.31
Options = Mapping[str, Any]
EMBEDDED: dict[str, tuple[str, Options]] = {  # transformers for images of some 48 pixels, from random weights
    "mini_swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 48, "window_size": 6, "embed_dim": 32, "depths": (2, 2, 2), "num_heads": (1, 2, 4)},
    ),
    "mini_vit": (
        "vit_tiny_patch16_224",
        {"img_size": 48, "patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 3},
    ),
}


class Encoder(nn.Module):
    """Image (B, 3, H, W) to maps (B, channels[i], ~H / strides[i], ~W / strides[i]), shallow to deep."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    raw_names: tuple[str, ...] = ()  # activations whose inputs are kept
    raw_maps: bool = False  # True: a map itself is what `take_raw` gives
    layered: bool = False  # True: all activations are modules, so a stage without one at its end has none there
    normalised: bool = True  # False: maps leave their stage as plain sums, and decoders normalise them first

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps."""
        raise NotImplementedError

    def keep_raw(self) -> None:
        """Keep each map as it is before its activation, for `take_raw`; refused where some stages have none.

        Where no stage ends with one, its maps, whose values have both signs, are raw themselves: those of
        transformers and of ConvNeXt are sums, those of MobileNetV2 and EfficientNet linear.
        """
        if self.raw_names or self.raw_maps:
            return
        from densecl.models.traced import ACTIVATIONS, POOLING, last_layers

        names = last_layers(self, ACTIVATIONS)
        if self.layered and not any(names) and not any(last_layers(self, POOLING)):
            self.raw_maps = True
            return
        if "" in names or len(set(names)) < len(names):
            raise SettingError(
                "not every stage of the encoder ends with an activation, and the method needs the maps before it",
                "use one such as resnet50 or mini",
            )
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(self.get_submodule(parent), child, KeptInput(self.get_submodule(name)))
        self.raw_names = tuple(names)

    def take_raw(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return `maps` of the last forward pass as they were before their activations; none without `keep_raw`."""
        if self.raw_maps:
            return tuple(maps)
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


class TimmEncoder(Encoder):
    """An encoder of timm cut into stages by `features_only`; images are brought to sides that `multiple` divides."""

    layered = True

    def __init__(self, net: nn.Module, channels: Sequence[int], strides: Sequence[int], multiple: int = 1):
        super().__init__()
        self.net, self.channels, self.strides, self.multiple = net, tuple(channels), tuple(strides), multiple
        self.channels_behind = getattr(net, "output_fmt", "NCHW") == "NHWC"  # Swin
        self.normalised = not self.channels_behind
        size: Any = getattr(net, "_traits", {}).get("img_size") or getattr(net, "default_cfg", {}).get("input_size")
        self.side: int | None = None if size is None else size[-1]  # of the images that it was made for

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        maps = self.net(to_multiple(image, self.multiple))
        return [x.permute(0, 3, 1, 2) for x in maps] if self.channels_behind else maps


def to_multiple(image: Tensor, multiple: int) -> Tensor:
    """The image with its sides brought bilinearly to the next ones that `multiple` divides; the same if they are."""
    size = [side + -side % multiple for side in image.shape[-2:]]
    if size == list(image.shape[-2:]):
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def map_norm(encoder: Encoder, index: int) -> nn.Module:
    """LayerNorm over the channels of a map that its stage left without one, as Swin does; else nothing."""
    from timm.layers.norm import LayerNorm2d

    return nn.Identity() if encoder.normalised else LayerNorm2d(encoder.channels[index])


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

    def __init__(self, widths: Sequence[int] = (32, 48, 96, 160), finest: int = FINEST):
        super().__init__()
        if len(widths) != 4 or min(widths) < 1:
            raise SettingError(f"widths of encoder 'mini' are {tuple(widths)}", "give four positive numbers")
        self.stem = ConvNormReLU(3, widths[0], stride=2)
        self.blocks = nn.ModuleList(MiniBlock(i, o) for i, o in pairwise(widths))
        self.strides = tuple(stride for stride in (4, 8, 16) if stride >= finest)
        self.channels = tuple(widths[len(widths) - len(self.strides) :])

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        x, maps = self.stem(image), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps[len(maps) - len(self.strides) :]


def build_encoder(
    name: str,
    weights: str = "timm",
    *,
    widths: Sequence[int] | None = None,
    output_stride: int | None = None,
    finest: int = FINEST,
    options: Options | None = None,
) -> Encoder:
    """An encoder by name.

    Args:
        name: "mini", "mini_swin", "mini_vit" or any encoder of timm that knows `features_only`.
        weights: "timm" (pretrained as timm has it; the small ones start from random weights), "none" (random) or a
            file: .safetensors, or .pth read with `weights_only=True`. A file may hold more than the encoder (its
            classifier), and `module.` before its names.
        widths: channels of the stem and of the three blocks of "mini".
        output_stride: of the deepest maps: stages that would go below are dilated instead (Chen et al., 2017), and all
            stages of stride 4 and more are returned, several of them with the same stride.
        finest: the stride below which no map is returned.
        options: of an encoder of timm, of `OPTIONS`: `img_size` where its layers have the size of an image,
            `drop_path_rate`, `window_size`, ... In a backbone's call they are `encoder.drop_path_rate=0.3`.

    UnknownNameError or SettingError if timm has no such encoder, stages or option; DataError as `load_weights`.
    """
    if name == "mini":
        if options:
            raise SettingError("encoder 'mini' has no options", "give its channels by encoder_widths")
        if output_stride not in (None, 16):
            raise SettingError(f"encoder 'mini' has output stride 16, not {output_stride}", "choose one of timm")
        encoder = net = Mini(finest=finest) if widths is None else Mini(widths, finest)
    else:
        if widths is not None:
            raise SettingError(f"encoder '{name}' has its own widths", "encoder_widths is for encoder=mini")
        made, weights, given = embedded(name, weights, options)
        stages = _stages(made, output_stride, tuple(given.items()), finest)
        net, weights = create_timm(made, weights, **dict(stages.options))
        encoder = TimmEncoder(net, stages.channels, stages.strides, stages.multiple)
    if weights not in ("timm", "none"):
        from densecl.models.weights import load_weights

        load_weights(net, Path(weights))
    return encoder


def embedded(name: str, weights: str, options: Options | None) -> tuple[str, str, dict[str, Any]]:
    """Name, weights and options for timm: those of a small encoder of ours below what is given; checked."""
    given = dict(options or {})
    for key in given:
        if key not in OPTIONS:
            raise UnknownNameError(f"option of encoder {name}", key, OPTIONS)
    if name in EMBEDDED:
        name, own = EMBEDDED[name]
        return name, "none" if weights == "timm" else weights, {**own, **given}
    return name, weights, given


def dilated_stride(name: str, wanted: int, options: Options | None = None) -> int:
    """The stride that an encoder can have in place of its last ones, or its own one where it cannot have holes."""
    if name == "mini":
        return 16
    made, _, given = embedded(name, "none", options)
    try:
        return _stages(made, wanted, tuple(given.items())).strides[-1]
    except SettingError:
        return _stages(made, None, tuple(given.items())).strides[-1]


class Stages(NamedTuple):
    """Shape of the stages of an encoder, as timm says it."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    multiple: int  # what must divide the sides of an image
    options: tuple[tuple[str, Any], ...]  # that make the encoder


@cache
def _stages(name: str, output_stride: int | None, given: tuple[tuple[str, Any], ...], finest: int = FINEST) -> Stages:
    """The wanted stages of timm's encoder; an `output_stride` that is its own one is none."""
    options: dict[str, Any] = {**dict(given), **({} if output_stride is None else {"output_stride": output_stride})}
    try:
        net, options = on_meta(name, features_only=True, **options)
        info = cast(Any, net).feature_info
        strides, channels, numbers = list(info.reduction()), list(info.channels()), list(info.out_indices)
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError, ValueError) as error:
        if isinstance(error, TypeError) and output_stride is not None:  # it knows no `output_stride`
            own = _stages(name, None, given, finest)
            if own.strides[-1] == output_stride:
                return own
        what = f"have output stride {output_stride}" if output_stride else "be cut into stages"
        what += f" with {', '.join(f'encoder.{key}={value}' for key, value in given)}" if given else ""
        message = f"encoder '{name}' cannot {what}: {first_line(error)}"
        raise SettingError(message, "choose a convolutional one such as resnet50") from error
    if output_stride not in (None, strides[-1]):
        raise SettingError(f"encoder '{name}' ends at stride {strides[-1]}, not {output_stride}", "choose another one")
    multiple = strides[0] if any(key in options for each in ANY_SIZE for key in each) else 1
    indices = [i for i, stride in enumerate(strides) if stride >= finest]
    if output_stride is None:  # the deepest stage of each stride
        indices = [i for i in indices if strides[i] not in strides[i + 1 :]]
    options["out_indices"] = tuple(numbers[i] for i in indices)  # timm lists the last blocks of a plain transformer
    wanted = (tuple(channels[i] for i in indices), tuple(strides[i] for i in indices))
    return Stages(*wanted, multiple, tuple(options.items()))


def on_meta(name: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A network of timm without memory or random numbers, and its options, with that for any size where it has it."""
    import timm

    base = known_encoder(name)
    with torch.device("meta"):
        for any_size in ANY_SIZE:
            with contextlib.suppress(TypeError):  # it takes any size as it is, or calls this otherwise
                chosen = {**options, **any_size}
                return timm.create_model(base, pretrained=False, **chosen), chosen
        return timm.create_model(base, pretrained=False, **options), options


def known_encoder(name: str) -> str:
    """The name of a network of timm without what follows its dot, the name of pretrained weights."""
    import timm

    base = name.partition(".")[0]
    if not timm.is_model(base):
        known = ["mini", *EMBEDDED, *timm.list_models()]
        near = get_close_matches(base, known, n=5, cutoff=0.4) or ["mini", "resnet18", "resnet50"]
        raise UnknownNameError("encoder", name, near, "timm.list_models() has all")
    return base


def create_timm(name: str, weights: str, **options: Any) -> tuple[nn.Module, str]:
    """A network of timm, and "timm" if it has its weights, "none", or the file from which they are still to be read."""
    import timm

    from densecl.models.weights import quiet_hub, weights_place

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
