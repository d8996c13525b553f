"""The weights of finished steps: safetensors, written atomically, with the settings inside."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

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
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(
            tensors, temporary, metadata={"densecl": "1", "step": str(step), "settings": settings.model_dump_json()}
        )
    return path.stat().st_size


def load_weights(network: Network, folder: Path, step: int, device: torch.device) -> None:
    """Read the weights of a step into a network that has grown as far.

    Raises:
        RunError: the file is missing, broken, or of another network.
    """
    path = weights_path(folder, step)
    if not path.is_file():
        raise RunError(
            f"there are no weights of step {step} at {path}", "the run did not finish that step; run it again"
        )
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}", "it is damaged; run again with --fresh") from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"{path} holds another network: {str(error).splitlines()[-1].strip()}") from error


def settings_of(path: Path) -> dict[str, object]:
    """The resolved settings inside a weights file."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["settings"])
