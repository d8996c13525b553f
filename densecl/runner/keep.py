"""Masks of a task, and the bytes that a method needs to perform all tasks learnt."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from densecl.masking import binary, packnet
from densecl.masking.store import save_masks
from densecl.records.record import Stored
from densecl.training.loop import Loop


def stored(loop: Loop) -> Stored:
    """The size of the model that performs all tasks learnt so far."""
    tensors = loop.strategy.model_tensors()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return Stored(tensors=size, file=file_bytes(tensors), formula=loop.strategy.model_bytes())


def keep_masks(loop: Loop, folder: Path, step: int) -> None:
    """Write the masks of the step's task, where it has some."""
    network, name = loop.network, loop.stream.tasks[step].name
    if name in binary.tasks(network):
        save_masks(binary.masks(network, name), folder / "masks" / f"{name}.safetensors", name)
    if owners := packnet.owners(network):
        save_masks(owners, folder / "masks" / "owners.safetensors", "owners")


DTYPES = {torch.int64: "I64", torch.float32: "F32", torch.uint8: "U8", torch.bool: "BOOL"}  # in the order of a file


def file_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the safetensors file of these tensors: 8, names, types and shapes as JSON, padded to 8, the values."""
    order, header, end = list(DTYPES), {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0])):
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + len(text) + -len(text) % 8 + end
