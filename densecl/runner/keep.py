"""Masks of a task, and the bytes that a method needs to perform all tasks learnt."""

from pathlib import Path

from safetensors.torch import save

from densecl.masking import binary, packnet, wsn
from densecl.masking.store import save_masks
from densecl.records.record import Stored
from densecl.training.loop import Loop


def stored(loop: Loop) -> Stored:
    """The size of the model that performs all tasks learnt so far."""
    tensors = loop.strategy.model_tensors()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    file = len(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    return Stored(tensors=size, file=file, formula=loop.strategy.model_bytes())


def keep_masks(loop: Loop, folder: Path, step: int, run: str) -> None:
    """Write the masks of the step's task, where it has some, for the run with this hash."""
    network, name = loop.network, loop.stream.tasks[step].name
    if name in binary.tasks(network):
        save_masks(binary.masks(network, name), folder / "masks" / f"{name}.safetensors", name, run=run)
    if chosen := wsn.masks(network, name):
        save_masks(chosen, folder / "masks" / f"{name}.safetensors", name, run=run)
    if owners := packnet.owners(network):
        save_masks(owners, folder / "masks" / "owners.safetensors", "owners", run=run)
