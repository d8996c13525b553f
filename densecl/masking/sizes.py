"""Bytes that a method stores for a sequence of tasks, from counts of parameters alone, in float32."""

from collections.abc import Sequence
from typing import NamedTuple

FLOAT = 4  # bytes


class Counts(NamedTuple):
    """Parameters of a backbone."""

    encoder: int
    decoder: int  # all behind the encoder, heads left out
    weights: int  # of both, without biases and normalisation: those that can be masked
    norm: int = 0  # scale, shift and statistics of normalisation where each task has its own, else 0

    @property
    def backbone(self) -> int:
        """Parameters of encoder and decoder."""
        return self.encoder + self.decoder


def mask_bytes(weights: int, bits: int = 1) -> float:
    """Bytes of so many bits for each weight."""
    return weights * bits / 8


def sequence_bytes(method: str, counts: Counts, heads: Sequence[int], block: int = 0, bits: int = 1) -> float:
    """Bytes that are stored after a sequence of tasks whose heads have so many parameters.

    `counts` are those of the backbone, for resblock without blocks; `block` is the number of parameters of one task's
    blocks, `bits` that of a Piggyback mask.

    Raises:
        ValueError: there is no such method.
    """
    tasks, norms = len(heads), counts.norm * (len(heads) - 1)
    backbone, decoder = FLOAT * counts.backbone + FLOAT * sum(heads), FLOAT * counts.decoder
    if method == "scratch":  # a network for each task
        return backbone + (tasks - 1) * FLOAT * counts.backbone
    if method in ("finetune", "classifier"):  # one network
        return backbone
    if method == "decoder":  # the encoder of the first task, a decoder for each
        return backbone + (tasks - 1) * decoder
    if method == "piggyback":  # the first task's network, a mask for each further one
        return backbone + FLOAT * norms + (tasks - 1) * mask_bytes(counts.weights, bits)
    if method == "packnet":  # one network and its owners
        return backbone + FLOAT * norms + mask_bytes(counts.weights, max(1, tasks.bit_length()))
    if method == "resblock":  # one autoencoder, blocks for each task
        return backbone + FLOAT * tasks * block
    raise ValueError(f"unknown method {method}")
