"""The weights of finished steps: safetensors, written atomically, with the settings inside."""

from pathlib import Path

from torch import Tensor

from densecl.errors import RunError
from densecl.models.network import Network
from densecl.settings.recipe import RunSettings
from densecl.tensors import read_tensors, save_tensors


def weights_path(folder: Path, step: int) -> Path:
    """Where a run keeps the weights of a step."""
    return folder / "weights" / f"step{step}.safetensors"


def save_weights(network: Network, settings: RunSettings, folder: Path, step: int) -> int:
    """Write the network as it is after a step; returns the bytes of the file."""
    path = weights_path(folder, step)
    metadata = {"densecl": "1", "step": str(step), "settings": settings.model_dump_json()}
    save_tensors(network.state_dict(), path, metadata)
    return path.stat().st_size


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
