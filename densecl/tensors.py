"""Tensors in safetensors files: written atomically, with a checksum that is looked at when they are read."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

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


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes: safetensors itself would not notice a changed number."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path, advice: str = "run again with --fresh") -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file written by `save_tensors`.

    Raises:
        RunError: the file is torn, changed or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}", f"it is damaged; {advice}") from error
    if metadata.get("sha256") != checksum(tensors):
        raise RunError(f"{path} is damaged: its checksum does not fit", advice)
    return tensors, metadata
