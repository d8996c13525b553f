"""Tensors in safetensors files: written atomically, with a checksum that is looked at when they are read."""

import hashlib
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from densecl.errors import RunError
from densecl.files import atomic_path


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically.

    Raises:
        RunError: no space left, or the folder cannot be written.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(content, temporary, metadata={**metadata, "sha256": checksum(content)})
        except SafetensorError as error:  # it hides the system's error in its text
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """True for the same names with equal numbers."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes: safetensors itself would not notice a changed number."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(
    path: Path, advice: str = "run again with --fresh", **expected: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file written by `save_tensors`.

    The metadata must have the values that are `expected`, such as the run; files of older versions lack some of them.

    Raises:
        RunError: the file is torn, changed, not ours, or of another run, step or kind.
    """
    tensors, metadata = load_safetensors(path, advice)
    if metadata.get("sha256") != checksum(tensors):
        raise RunError(f"{path} is damaged: its checksum does not fit", advice)
    check_bound(path, metadata, expected, advice)
    return tensors, metadata


def load_safetensors(path: Path, advice: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of any safetensors file; RunError if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}", "; ".join(filter(None, ["it is damaged", advice]))) from error


def is_safetensors(path: Path) -> bool:
    """True if a file begins as safetensors files do; RunError if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"  # after the length of the header, a number of 8 bytes
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def load_plain(source: Path | BinaryIO, path: Path) -> Any:
    """Plain data and tensors that torch has written; RunError for anything else in the file, and none of it is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file leads torch to errors of any kind
        # its own text may advise to load the file all the same: only the name of what it refused is shown
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise RunError(f"{path} holds more than plain data ({named[1]}); it was not executed") from error
        raise RunError(f"{path} cannot be read: it is damaged, or torch has not written it") from error


def check_bound(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any], advice: str = "") -> None:
    """RunError for a file that says that it is of another run, step or kind; older ones do not say all of it."""
    for key, value in expected.items():
        other = found.get(key, value)
        if type(other) is not type(value) or other != value:
            raise RunError(f"{path} is of another {key}: {' '.join(str(other).split())[:40]}, not {value}", advice)
