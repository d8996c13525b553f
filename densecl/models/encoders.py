"""Encoders: image to maps of growing stride. Any encoder of timm, and a small one for small images."""

import contextlib
import logging
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import platformdirs
import safetensors
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from torch import Tensor, nn

from densecl.errors import DataError, SettingError, UnknownNameError
from densecl.models.layers import ConvNormReLU

FINEST = 4  # strides below are left out: their maps are large and no method here reads them


class Encoder(nn.Module):
    """Image (B, 3, H, W) to a list of maps, shallow to deep.

    Attributes:
        channels: of each map.
        strides: of each map, growing.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps (B, channels[i], ~H / strides[i], ~W / strides[i])."""
        raise NotImplementedError


class TimmEncoder(Encoder):
    """An encoder of timm cut into stages by `features_only`."""

    def __init__(self, net: nn.Module, channels: Sequence[int], strides: Sequence[int]):
        super().__init__()
        self.net, self.channels, self.strides = net, tuple(channels), tuple(strides)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        maps = self.net(image)
        # Some transformers of timm hand out (B, h, w, C).
        return [x if x.shape[1] == c else x.permute(0, 3, 1, 2) for x, c in zip(maps, self.channels, strict=True)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions of stride 2 and 1 beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = ConvNormReLU(inputs, outputs, stride=2)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / 2, W / 2), rounded up."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class Mini(Encoder):
    """A residual encoder for images of some 48 pixels: a stem and three blocks, maps of stride 4, 8 and 16.

    Args:
        widths: channels of the stem and of the three blocks.
    """

    def __init__(self, widths: Sequence[int] = (32, 48, 96, 160)):
        super().__init__()
        if len(widths) != 4 or min(widths) < 1:
            raise SettingError(f"widths of encoder 'mini' are {tuple(widths)}", "give four positive numbers")
        self.stem = ConvNormReLU(3, widths[0], stride=2)
        self.blocks = nn.ModuleList(ResidualBlock(i, o) for i, o in pairwise(widths))
        self.channels, self.strides = tuple(widths[1:]), (4, 8, 16)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        x, maps = self.stem(image), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


def build_encoder(
    name: str,
    weights: str = "timm",
    out: Sequence[int] | None = None,
    *,
    widths: Sequence[int] | None = None,
    output_stride: int | None = None,
) -> Encoder:
    """An encoder by name.

    Args:
        name: "mini" or any encoder of timm that knows `features_only`.
        weights: "timm" (pretrained as timm has it; "mini" has none and starts from random weights), "none" (random) or
            a file: .safetensors, or .pth read with `weights_only=True`. A file may hold more than the encoder (its
            classifier), and `module.` before its names.
        out: strides of the maps to return; None: every stage of stride 4 and more.
        widths: of "mini" only, see `Mini`.
        output_stride: of the deepest maps: stages that would go below are dilated instead (Chen et al., 2017), and all
            stages of stride 4 and more are returned, several of them with the same stride. `out` is not used then.

    Raises:
        UnknownNameError: timm has no such encoder.
        SettingError: the encoder has no stages, not those of `out` or not that output stride; `widths` for another
            encoder.
        DataError: weights that cannot be fetched, read or do not fit.
    """
    if name == "mini":
        if out is not None and tuple(out) != (4, 8, 16):
            raise SettingError(f"encoder 'mini' has maps of stride 4, 8, 16, not {tuple(out)}")
        if output_stride not in (None, 16):
            raise SettingError(f"encoder 'mini' has output stride 16, not {output_stride}", "choose one of timm")
        encoder: Encoder = Mini() if widths is None else Mini(widths)
        if weights not in ("timm", "none"):
            load_weights(encoder, Path(weights))
        return encoder
    if widths is not None:
        raise SettingError(f"encoder '{name}' has its own widths", "encoder_widths is for encoder=mini")
    return _build_timm(name, weights, out, output_stride)


def _build_timm(name: str, weights: str, out: Sequence[int] | None, output_stride: int | None = None) -> Encoder:
    base = known_encoder(name)
    options: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}
    try:
        with torch.device("meta"):  # its shape alone: no memory, no random numbers
            info: Any = timm.create_model(base, features_only=True, pretrained=False, **options).feature_info
        strides, channels = list(info.reduction()), list(info.channels())
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError) as error:
        what = f"have output stride {output_stride}" if options else "be cut into stages"
        message = f"encoder '{name}' cannot {what}: {_line(error)}"
        raise SettingError(message, "choose a convolutional one such as resnet50") from error
    if output_stride is not None and strides[-1] != output_stride:
        raise SettingError(f"encoder '{name}' ends at stride {strides[-1]}, not {output_stride}", "choose another one")
    last = {stride: i for i, stride in enumerate(strides)}  # the deepest stage of each stride
    wanted = [stride for stride in last if stride >= FINEST] if out is None else list(out)
    if not set(wanted) <= set(last):
        raise SettingError(f"encoder '{name}' has stages of stride {sorted(last)}, not all of {wanted}")
    indices = tuple(last[stride] for stride in wanted)
    if output_stride is not None:
        indices = tuple(i for i, stride in enumerate(strides) if stride >= FINEST)
        wanted = [strides[i] for i in indices]
    net, weights = create_timm(name, weights, features_only=True, out_indices=indices, **options)
    encoder = TimmEncoder(net, [channels[i] for i in indices], wanted)
    if weights not in ("timm", "none"):
        load_weights(net, Path(weights))
    return encoder


def known_encoder(name: str) -> str:
    """The name without what follows its dot: which of its pretrained weights.

    Raises:
        UnknownNameError: timm has no such network.
    """
    base = name.partition(".")[0]
    if not timm.is_model(base):
        known = ["mini", *timm.list_models()]
        near = get_close_matches(base, known, n=5, cutoff=0.4) or ["mini", "resnet18", "resnet50"]
        raise UnknownNameError("encoder", name, near, "timm.list_models() has all")
    return base


def create_timm(name: str, weights: str, **options: Any) -> tuple[nn.Module, str]:
    """A network of timm, with its pretrained weights for "timm", and where its weights are now to come from.

    Returns:
        (network, "timm", "none" or a file that is still to be read: the user's, or the one at `weights_place`).

    Raises:
        SettingError: timm cannot build it. DataError: its weights cannot be fetched.
    """
    place = weights_place(name)
    if weights == "timm" and place.is_file():
        weights = str(place)
    try:
        with _without_waiting() if weights == "timm" else contextlib.nullcontext():
            return timm.create_model(name, pretrained=weights == "timm", **options), weights
    except Exception as error:  # timm and the hub raise what they like; that the name exists was seen before
        if weights != "timm":
            raise SettingError(f"encoder '{name}' cannot be built: {_line(error)}") from error
        raise DataError(
            f"cannot fetch timm's weights of encoder '{name}': {_line(error)}",
            f"put its file at {place}, or use --weights FILE or --weights none",
        ) from error


def weights_place(name: str) -> Path:
    """Where a user may put an encoder's weights by hand, to be used in place of a download."""
    return platformdirs.user_data_path("densecl") / "weights" / f"{name}.safetensors"


@contextlib.contextmanager
def _without_waiting() -> Iterator[None]:
    """Where the hub cannot be reached, use what was downloaded before or fail at once: the hub's client would retry."""
    host = urlsplit(constants.ENDPOINT)
    offline, level = constants.HF_HUB_OFFLINE, logging.getLogger("huggingface_hub").level
    if not getproxies():
        try:
            socket.create_connection((host.hostname or "", host.port or 443), timeout=5).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.getLogger("huggingface_hub").setLevel(level)


def load_weights(
    net: nn.Module, path: Path, rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
) -> None:
    """Fill all parameters and buffers of `net` from a file; names the file has beyond those are left out.

    Args:
        net: to be filled.
        path: .safetensors or .pth.
        rename: from the file's names and shapes to those of `net`.

    Raises:
        DataError: the file is missing or unreadable, lacks a name or has it in another shape; the first one is named.
    """
    stored = _read(path) if rename is None else rename(_read(path))
    # `features_only` renames: stem.0.weight becomes stem_0.weight or model.stem.0.weight.
    candidates = {
        form: tensor for key, tensor in stored.items() for form in (f"model.{key}", key.replace(".", "_", 1))
    } | stored  # a name of the file itself wins
    state = net.state_dict()
    for key, tensor in state.items():
        if key not in candidates:
            if key.endswith("num_batches_tracked"):  # files of old torch versions lack it; only momentum=None reads it
                candidates[key] = tensor
                continue
            raise DataError(f"{path} has no weights '{key}'", "is it of the same encoder?")
        if candidates[key].shape != tensor.shape:
            raise DataError(
                f"{path} has '{key}' of shape {tuple(candidates[key].shape)}, not {tuple(tensor.shape)}",
                "is it of the same encoder?",
            )
    net.load_state_dict({key: candidates[key] for key in state})


def _read(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file; nothing in it is ever executed."""
    if not path.is_file():
        raise DataError(f"no weights file {path}", "give --weights a file, 'timm' or 'none'")
    try:
        if path.suffix == ".safetensors":
            stored: object = safetensors.torch.load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        message = f"cannot read weights from {path}: {_line(error)}"
        raise DataError(message, "expected .safetensors or a state dict saved by torch") from error
    for key in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict):
        raise DataError(f"{path} holds a {type(stored).__name__}, not a state dict of names and tensors")
    tensors = cast(dict[str, Tensor], {k: v for k, v in stored.items() if isinstance(v, Tensor)})
    return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}


def _line(error: Exception) -> str:
    """The first line of an error's text."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).rstrip(".")
