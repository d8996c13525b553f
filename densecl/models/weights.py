"""Pretrained weights: where they lie, how they are fetched and read; nothing in a file is ever executed."""

import contextlib
import logging
import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import platformdirs
import torch
from torch import Tensor, nn

from densecl.errors import DataError


def weights_place(name: str) -> Path:
    """The file in which a user may put an encoder's weights, to be used in place of a download."""
    return platformdirs.user_data_path("densecl") / "weights" / f"{name}.safetensors"


def reach(url: str) -> None:
    """Raise OSError at once if nothing answers at `url`: clients would retry for minutes. A proxy is trusted."""
    host = urlsplit(url)
    if not getproxies():
        socket.create_connection((host.hostname or "", host.port or 443), timeout=5).close()


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Let the hub's client use its cache, or fail at once, if the hub cannot be reached; without its warnings."""
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    offline, level = constants.HF_HUB_OFFLINE, logger.level
    try:
        reach(constants.ENDPOINT)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logger.setLevel(level)


def load_weights(
    net: nn.Module, path: Path, rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
) -> None:
    """Fill all parameters and buffers of `net` from a file; names that only the file has are left out.

    Args:
        net: network to fill.
        path: .safetensors, or .pth read with `weights_only=True`.
        rename: from the file's names and shapes to those of `net`.

    Raises:
        DataError: the file is missing or unreadable, lacks a name or has it in another shape; the first one is named.
    """
    stored = _read(path) if rename is None else rename(_read(path))
    # timm's `features_only` renames: stem.0.weight becomes stem_0.weight or model.stem.0.weight
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
    import safetensors.torch

    if not path.is_file():
        raise DataError(f"no weights file {path}", "give --weights a file, 'timm' or 'none'")
    try:
        if path.suffix == ".safetensors":
            stored: object = safetensors.torch.load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        message = f"cannot read weights from {path}: {first_line(error)}"
        raise DataError(message, "expected .safetensors or a state dict saved by torch") from error
    for key in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict):
        raise DataError(f"{path} holds a {type(stored).__name__}, not a state dict of names and tensors")
    tensors = cast(dict[str, Tensor], {k: v for k, v in stored.items() if isinstance(v, Tensor)})
    return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}


def first_line(error: Exception) -> str:
    """The first line of an error's text, without a full stop."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).rstrip(".")
