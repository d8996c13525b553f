"""Storage of a sequence of tasks, from the counts of a network's numbers, by `masking.sizes`."""

from collections.abc import Sequence

from torch import nn

from densecl.masking.parametrized import is_below, maskable
from densecl.masking.sizes import Counts, mask_bytes, sequence_bytes
from densecl.models.network import Network


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
) -> int:
    """Bytes that a method keeps after some tasks, by `masking.sizes.sequence_bytes`; `norms` as for `counts`.

    With `masked_first` the first task has a mask of so many `bits` a weight as well.
    """
    heads = [sum(numbers(network.task_heads.of(task)).values()) for task in tasks]
    backbone, block = counts(network, norms), 0
    if method == "resblock":
        block = sum(numbers(network.backbone.get_submodule("blocks")).values())
        backbone = backbone._replace(decoder=backbone.decoder - block)
    size = sequence_bytes(method, backbone, heads, block, bits)
    return round(size + (mask_bytes(backbone.weights, bits) if masked_first else 0))
