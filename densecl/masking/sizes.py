"""What a method stores for a sequence of tasks, from the counts of parameters alone, in float32."""

from collections.abc import Sequence
from typing import NamedTuple

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
