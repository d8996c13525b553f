"""Small numbers packed into bits: one plane of bits after another, each as `numpy.packbits` has it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PIECE = 1 << 16  # numbers unpacked at once: they stay in the cache, and no large memory is asked for


def bits_for(values: int) -> int:
    """Bits that tell so many values apart: ceil(log2(values)), at least 1."""
    return max(1, (values - 1).bit_length())


def packed_bytes(count: int, bits: int = 1) -> int:
    """Bytes of `count` packed numbers; each plane is rounded up to whole bytes."""
    return bits * -(-count // 8)


def pack(values: Tensor, bits: int = 1) -> Tensor:
    """Pack bool or uint8 numbers below 2^bits into (packed_bytes(count, bits),) uint8; plane 0 has the lowest bits."""
    flat = values.detach().flatten().cpu()
    if flat.dtype == torch.bool:  # the only form that is packed often, and a million at a time
        return torch.from_numpy(np.packbits(flat.numpy())).to(values.device)
    if flat.dtype != torch.uint8 or (flat.numel() and int(flat.max()) >> bits):
        raise ValueError(f"cannot pack {flat.dtype} up to {flat.max()} into {bits} bits")
    array = flat.numpy()
    planes = [np.packbits((array >> bit) & 1) for bit in range(bits)]
    return torch.from_numpy(np.concatenate(planes)).to(values.device)


def unpack(packed: Tensor, shape: torch.Size | tuple[int, ...], bits: int = 1) -> Tensor:
    """The numbers that `pack` packed, in their shape: bool for one bit, else uint8."""
    shape = torch.Size(shape)
    count = shape.numel()
    if packed.dtype != torch.uint8 or packed.numel() != packed_bytes(count, bits):
        raise ValueError(f"{packed.numel()} bytes are not {count} numbers of {bits} bits")
    if bits == 1:
        return _plane(packed, count).view(shape)
    values = torch.zeros(count, dtype=torch.uint8, device=packed.device)
    for bit, plane in enumerate(packed.view(bits, -1)):
        values |= _plane(plane, count).to(torch.uint8) << bit
    return values.view(shape)


def bits_in(packed: Tensor, count: int) -> int:
    """Bits of each number in the packed form of `count` numbers."""
    return packed.numel() // packed_bytes(count) if count else 1


def multiply(packed: Tensor, weight: Tensor, factors: Sequence[int], out: Tensor | None = None) -> Tensor:
    """The weight times the factor of each packed number, without gradient.

    `factors` are small whole numbers, by packed number; `out` is memory for the result, laid out as the weight.
    """
    weight = weight.detach()
    out = torch.empty_like(weight) if out is None else out
    count = weight.numel()
    bits = bits_in(packed, count)
    in_numpy = packed.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    if not (in_numpy and weight.is_contiguous() and out.is_contiguous()):
        table = torch.tensor(factors, dtype=weight.dtype, device=weight.device)
        return torch.mul(weight, table[unpack(packed, weight.shape, bits).int()], out=out)
    planes = packed.numpy().reshape(bits, -1)
    table = np.array(factors, np.int8)
    flat, result = weight.numpy().reshape(-1), out.numpy().reshape(-1)
    for start in range(0, count, PIECE):
        end = min(start + PIECE, count)
        pieces = [np.unpackbits(plane[start // 8 : -(-end // 8)], count=end - start) for plane in planes]
        if bits == 1 and tuple(factors) == (0, 1):
            signs = pieces[0]
        else:
            signs = table.take(sum(piece << bit for bit, piece in enumerate(pieces)))
        np.multiply(flat[start:end], signs, out=result[start:end])
    return out


def _plane(packed: Tensor, count: int) -> Tensor:
    """(count,) bool of one plane."""
    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).view(np.bool_))
    return _shifted(packed, count)


def _shifted(packed: Tensor, count: int) -> Tensor:
    """As `_plane`, without NumPy."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> shifts) & 1).flatten()[:count].bool()
