"""What a method stores for a sequence of tasks, from the counts of parameters alone. Float32; MiB are 2^20 bytes."""

from collections.abc import Sequence
from typing import NamedTuple

MIB = 2**20
FLOAT = 4  # bytes


class Counts(NamedTuple):
    """Parameters of a backbone.

    Attributes:
        encoder: of the encoder. decoder: of all behind it, heads left out. weights: of both, without biases and
            normalisation: what can be masked. norm: scale, shift and statistics of normalisation, numbers a task has
            of its own where it is trained per task; 0 where it is not.
    """

    encoder: int
    decoder: int
    weights: int
    norm: int = 0

    @property
    def backbone(self) -> int:
        """Parameters of encoder and decoder."""
        return self.encoder + self.decoder


def mebibytes(count: float) -> float:
    """Bytes in MiB, the "MB" of Matsumoto and Yanai."""
    return count / MIB


def convolution(inputs: int, outputs: int, kernel: int) -> tuple[int, int]:
    """(weights, biases) of a convolution, transposed or not."""
    return inputs * outputs * kernel**2, outputs


def head_parameters(channels: int, outputs: int, kernel: int = 1) -> int:
    """Parameters of a convolution as a head."""
    return sum(convolution(channels, outputs, kernel))


def unet_counts(width: int = 64, depth: int = 4) -> Counts:
    """Of the U-Net of Matsumoto and Yanai: 14,786,193 parameters with a head of 81 classes on the defaults."""
    skips = [width << level for level in range(depth)]
    stages = [*skips, skips[-1]]
    down = [pair for i, o in zip([3, *stages[:-1]], stages, strict=True) for pair in ((i, o, 3), (o, o, 3))]
    outputs = [width, *skips[:-1]]
    up = [layer for c, o in zip(skips, outputs, strict=True) for layer in ((c, c, 2), (2 * c, o, 3), (o, o, 3))]
    encoder, decoder = ([convolution(*layer) for layer in layers] for layers in (down, up))
    weights = sum(weight for weight, _ in encoder + decoder)
    return Counts(sum(map(sum, encoder)), sum(map(sum, decoder)), weights)


def block_parameters(channels: int) -> int:
    """Of a residual block of two 3x3 convolutions."""
    return 2 * sum(convolution(channels, channels, 3))


def mask_bytes(weights: int, bits: int = 1) -> float:
    """n/8 for one bit a weight."""
    return weights * bits / 8


def sequence_bytes(method: str, counts: Counts, heads: Sequence[int], block: int = 0, bits: int = 1) -> float:
    """Bytes that are stored after a sequence of tasks.

    Args:
        method: "scratch" (a network a task), "finetune" or "classifier" (one network), "decoder" (encoder of the first
            task, a decoder a task), "piggyback" (the first task's network, a mask for each further one), "packnet" (one
            network and its owners) or "resblock" (one autoencoder, blocks a task).
        counts: of the backbone; for "resblock" without the blocks.
        heads: parameters of the head of each task.
        block: "resblock": parameters of the blocks of one task.
        bits: of a mask, for "piggyback".

    Raises:
        ValueError: there is no such method.
    """
    tasks = len(heads)
    own = FLOAT * (sum(heads) + counts.norm * (tasks - 1))
    backbone, decoder = FLOAT * counts.backbone, FLOAT * counts.decoder
    if method == "scratch":
        return tasks * backbone + FLOAT * sum(heads)
    if method in ("finetune", "classifier"):
        return backbone + FLOAT * sum(heads)
    if method == "decoder":
        return backbone + (tasks - 1) * decoder + FLOAT * sum(heads)
    if method == "piggyback":
        return backbone + own + (tasks - 1) * mask_bytes(counts.weights, bits)
    if method == "packnet":
        return backbone + own + mask_bytes(counts.weights, max(1, tasks.bit_length()))
    if method == "resblock":
        return backbone + FLOAT * (sum(heads) + tasks * block)
    raise ValueError(f"unknown method {method}")


def rounded_total(first: float, further: float, tasks: int) -> float:
    """As the papers add their rows: MiB of the first task and of each further one, rounded to 0.1 before."""
    return round(round(first, 1) + (tasks - 1) * round(further, 1), 1)
