"""The teacher: the frozen network of the previous step."""

import copy

from densecl.models.network import Network


def snapshot(network: Network) -> Network:
    """A frozen copy in evaluation mode, without gradients; taken before the network grows."""
    return copy.deepcopy(network).eval().requires_grad_(False)
