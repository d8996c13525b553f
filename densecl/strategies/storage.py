"""Bytes that a method stores for a sequence of tasks, in float32, from the counts of a network's numbers alone."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from densecl.masking.parametrized import is_below, maskable
from densecl.models.network import Network

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


OWN_NORMS = ("piggyback", "packnet", "norms", "adapter", "lora", "taps", "wsn")  # of each task


def sequence_bytes(
    method: str, counts: Counts, heads: Sequence[int], block: int = 0, bits: int = 1, added: int = 0
) -> float:
    """Bytes that are stored after a sequence of tasks whose heads have so many parameters.

    `counts` are those of the backbone, for resblock without blocks; `block` is the number of parameters of one task's
    blocks, `bits` that of a Piggyback mask, `added` the numbers that all tasks together add to the first one's weights.
    """
    tasks = len(heads)
    own = {  # beside the first task's network, the heads and normalisation of each task's own
        "scratch": (tasks - 1) * FLOAT * counts.backbone,  # a network for each task
        "finetune": 0,
        "decoder": (tasks - 1) * FLOAT * counts.decoder,  # the encoder of the first task, a decoder for each
        "piggyback": (tasks - 1) * mask_bytes(counts.weights, bits),
        "packnet": mask_bytes(counts.weights, max(1, tasks.bit_length())),  # owners
        "resblock": FLOAT * tasks * block,  # one autoencoder, blocks for each task
        "norms": 0,
        **dict.fromkeys(("adapter", "lora", "taps"), FLOAT * added),
        "wsn": tasks * mask_bytes(counts.weights),
    }
    norms = (tasks - 1) * counts.norm if method in OWN_NORMS else 0
    return FLOAT * (counts.backbone + sum(heads) + norms) + own[method]


def numbers(module: nn.Module) -> dict[str, int]:
    """Count of each floating-point tensor that a module was built with: no masks, no owners, no counters."""
    return {
        name: tensor.numel()
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and ".parametrizations.weight.0." not in f".{name}"
    }


def counts(network: Network, norms: Sequence[str] = ()) -> Counts:
    """Counts of a network's backbone; `norms` are dotted names of normalisation layers that each task has itself."""
    sizes = numbers(network.backbone)
    decoder = sum(n for name, n in sizes.items() if is_below(name, network.backbone.decoder_parts))
    weights = sum(module.weight.numel() for module in maskable(network.backbone, ()).values())  # type: ignore[union-attr]
    own = sum(n for name, n in sizes.items() if is_below(f"backbone.{name}", norms))
    return Counts(sum(sizes.values()) - decoder, decoder, weights, own)


def formula_bytes(
    network: Network,
    method: str,
    tasks: Sequence[str],
    *,
    norms: Sequence[str] = (),
    bits: int = 1,
    masked_first: bool = False,
    added: int = 0,
) -> int:
    """Bytes that a method keeps after some tasks, by `sequence_bytes`; `norms` as for `counts`.

    With `masked_first` the first task has a mask of so many `bits` a weight as well.
    """
    heads = [sum(numbers(network.task_heads.of(task)).values()) for task in tasks]
    backbone, block = counts(network, norms), 0
    if method == "resblock":
        block = sum(numbers(network.backbone.get_submodule("blocks")).values())
        backbone = backbone._replace(decoder=backbone.decoder - block)
    size = sequence_bytes(method, backbone, heads, block, bits, added)
    return round(size + (mask_bytes(backbone.weights, bits) if masked_first else 0))
