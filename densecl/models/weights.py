"""Pretrained weights: where they lie, how they are fetched and read; nothing in a file is ever executed."""

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import platformdirs
from torch import Tensor, nn

from densecl.errors import DataError, DenseCLError
from densecl.files import expanded
from densecl.tensors import load_plain, load_safetensors


def weights_place(name: str) -> Path:
    """The file in which a user may put an encoder's weights, to be used in place of a download."""
    return expanded(lambda: platformdirs.user_data_dir("densecl")) / "weights" / f"{name}.safetensors"


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
    """Fill all parameters and buffers of `net` from a .safetensors or .pth file, whose names `rename` may change.

    Raises:
        DataError: the file is missing or unreadable, lacks a name or has it in another shape; the first one is named.
    """
    stored = read_weights_file(path) if rename is None else rename(read_weights_file(path))
    state = net.state_dict()
    # files of old torch versions lack num_batches_tracked, which only momentum=None reads
    candidates = {key: tensor for key, tensor in state.items() if key.endswith("num_batches_tracked")}
    for key, tensor in stored.items():  # timm's `features_only` renames stem.0.weight: model.stem.0, stem_0
        candidates |= {f"model.{key}": tensor, key.replace(".", "_", 1): tensor}
    candidates |= stored  # a name of the file itself wins
    for key, tensor in state.items():
        shape, wanted = tuple(candidates[key].shape) if key in candidates else None, tuple(tensor.shape)
        if shape != wanted:
            fault = f"no weights '{key}'" if shape is None else f"'{key}' of shape {shape}, not {wanted}"
            raise DataError(f"{path} has {fault}", "is it of the same encoder?")
    net.load_state_dict({key: candidates[key] for key in state})


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; what the file is decides how it is read, not what it is called."""
    if not path.is_file():
        raise DataError(f"no weights file {path}", "give --weights a file, 'timm' or 'none'")
    with path.open("rb") as file:
        head = file.read(512)
    fault, stored = _no_weights(head), None
    try:
        if not fault and head[8:9] == b"{":
            stored, metadata = load_safetensors(path)
            fault = "it holds masks" if metadata.get("format", "").startswith("densecl masks") else ""
        elif not fault:
            stored = load_plain(path, path)
    except DenseCLError as error:
        fault = str(error).removeprefix(f"{path} ")
    if fault:
        raise DataError(f"cannot read weights from {path}: {fault}", "expected .safetensors or a state dict of torch")
    for key in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict):
        raise DataError(f"{path} holds a {type(stored).__name__}, not a state dict of names and tensors")
    return {str(key).removeprefix("module."): value for key, value in stored.items() if isinstance(value, Tensor)}


def _no_weights(head: bytes) -> str:
    """Name the kind of a file that cannot hold weights, from its first bytes."""
    text = head.decode("utf-8", "ignore")
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, to be replaced by `git lfs pull`"
    if text.lstrip().lower().startswith(("<!doctype", "<html", "<?xml")):
        return "it is a saved web page"
    if head.startswith(b"densecl checkpoint"):
        return "it is a checkpoint of a run"
    return "it is a text file" if text.isascii() and "".join(text.split()).isprintable() else ""
