"""Masks and ownership maps in files: packed bits by parameter name, restored bit for bit, refused elsewhere."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from densecl.errors import DataError
from densecl.files import atomic_path
from densecl.masking.bits import bits_for, pack, unpack

FORMAT = "densecl masks 1"
Shapes = Mapping[str, tuple[int, ...]]


def bits_of(values: Mapping[str, Tensor]) -> int:
    """Bits of each number: 1 for bool masks, 2 for ternary ones, ceil(log2(tasks + 1)) for owners."""
    if all(tensor.dtype == torch.bool for tensor in values.values()):
        return 1
    return bits_for(1 + max(int(tensor.max()) for tensor in values.values() if tensor.numel()))


def save_masks(values: Mapping[str, Tensor], path: Path, note: str = "") -> int:
    """Write masks or owners as `binary.masks` or `packnet.owners` return them; the number of bytes written.

    Raises:
        RunError: it cannot be written.
    """
    bits = bits_of(values)
    wide = {name: tensor if bits == 1 else tensor.to(torch.uint8) for name, tensor in values.items()}
    packed = {name: pack(tensor, bits).cpu() for name, tensor in wide.items()}
    shapes = {name: list(tensor.shape) for name, tensor in values.items()}
    metadata = {"format": FORMAT, "bits": str(bits), "shapes": json.dumps(shapes), "note": note}
    content = save(packed, {**metadata, "sha256": _checksum(packed)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def load_masks(path: Path, shapes: Shapes | None = None) -> dict[str, Tensor]:
    """Read masks or owners, for weights of these shapes (`weight_shapes`) where they are given.

    Raises:
        DataError: the file is missing, damaged, not ours or of another network: the first name or shape that differs.
    """
    try:
        with safe_open(path, framework="pt") as file:
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"cannot read masks from {path}: {error}", "expected a file of save_masks") from error
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} holds no masks", "expected a file of save_masks")
    if metadata.get("sha256") != _checksum(packed):
        raise DataError(f"{path} is damaged: its checksum does not fit")
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


def _checksum(packed: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(packed):
        digest.update(name.encode())
        digest.update(packed[name].numpy().data)
    return digest.hexdigest()
