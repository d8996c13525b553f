"""Masks and ownership maps in files: packed bits by parameter name, restored bit for bit, refused elsewhere."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from densecl.errors import DataError
from densecl.masking.bits import bits_for, pack, unpack
from densecl.tensors import read_tensors, save_tensors

FORMAT = "densecl masks 1"
Shapes = Mapping[str, tuple[int, ...]]


def save_masks(values: Mapping[str, Tensor], path: Path, note: str = "", **bound: str) -> None:
    """Write masks or owners as `binary.masks` or `packnet.owners` return them; `bound` says whose they are.

    A number takes 1 bit for bool masks, 2 for ternary ones, ceil(log2(tasks + 1)) for owners.
    """
    if all(tensor.dtype == torch.bool for tensor in values.values()):
        packed, bits = {name: pack(tensor) for name, tensor in values.items()}, 1
    else:
        bits = bits_for(1 + max(int(tensor.max()) for tensor in values.values() if tensor.numel()))
        packed = {name: pack(tensor.to(torch.uint8), bits) for name, tensor in values.items()}
    shapes = json.dumps({name: list(tensor.shape) for name, tensor in values.items()})
    save_tensors(packed, path, {"format": FORMAT, "bits": str(bits), "shapes": shapes, "note": note, **bound})


def load_masks(path: Path, shapes: Shapes | None = None, **expected: str) -> dict[str, Tensor]:
    """Read masks or owners, for weights of these shapes by parameter name, where they are given.

    Raises:
        RunError: the file is missing, damaged, not ours or not what is `expected`, see `read_tensors`.
        DataError: it has other masks; names the first parameter or shape that differs.
    """
    packed, metadata = read_tensors(path, "expected a file of save_masks", **expected)
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} holds no masks", "expected a file of save_masks")
    stored = {name: tuple(shape) for name, shape in json.loads(metadata["shapes"]).items()}
    shapes, advice = stored if shapes is None else shapes, "these masks are of another backbone"
    for name in dict.fromkeys([*shapes, *stored]):  # in the network's order
        has, wants = stored.get(name), tuple(shapes.get(name, ()))
        if has is None:
            raise DataError(f"{path} has no mask of '{name}', shape {wants}", advice)
        if name not in shapes:
            raise DataError(f"{path} has a mask of '{name}', shape {has}, which the network lacks", advice)
        if has != wants:
            raise DataError(f"{path} has '{name}' of shape {has}, not {wants}", advice)
    bits = int(metadata["bits"])
    return {name: unpack(packed[name], shape, bits) for name, shape in stored.items()}
