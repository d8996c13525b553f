"""The weights of finished steps: safetensors, written atomically, with the settings inside."""

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
from densecl.models.network import Network
from densecl.recipe import RunSettings


def weights_path(folder: Path, step: int) -> Path:
    """Where a run keeps the weights of a step."""
    return folder / "weights" / f"step{step}.safetensors"


def save_weights(network: Network, settings: RunSettings, folder: Path, step: int) -> int:
    """Write the network as it is after a step; returns the bytes of the file."""
    path = weights_path(folder, step)
    metadata = {"densecl": "1", "step": str(step), "settings": settings.model_dump_json()}
    save_tensors(network.state_dict(), path, metadata)
    return path.stat().st_size


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
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
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file written by `save_tensors`.

    Raises:
        RunError: the file is torn, changed or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}", "it is damaged; run again with --fresh") from error
    if metadata.get("sha256") != checksum(tensors):
        raise RunError(f"{path} is damaged: its checksum does not fit", "run again with --fresh")
    return tensors, metadata


def read_weights(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights of a finished step.

    Raises:
        RunError: they are missing or damaged.
    """
    path = weights_path(folder, step)
    if not path.is_file():
        raise RunError(
            f"there are no weights of step {step} at {path}", "the run did not finish that step; run it again"
        )
    return read_tensors(path)[0]


def load_weights(network: Network, folder: Path, step: int) -> None:
    """Read the weights of a step into a network that has grown as far.

    Raises:
        RunError: the file is missing, broken, or of another network.
    """
    path = weights_path(folder, step)
    try:
        network.load_state_dict(read_weights(folder, step))
    except RuntimeError as error:
        raise RunError(f"{path} holds another network: {str(error).splitlines()[-1].strip()}") from error
