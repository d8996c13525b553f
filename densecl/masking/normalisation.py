"""Normalisation under masks: left as it is, or with scale, shift and statistics of each task's own (section 5.3)."""

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from densecl.masking.parametrized import is_below

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)  # the first: BatchNorm, SyncBatchNorm and InstanceNorm


def norm_layers(network: nn.Module) -> list[str]:
    """Dotted names of normalisation layers that have parameters or statistics."""
    return [name for name, module in network.named_modules() if isinstance(module, NORMS) and module.state_dict()]


def fix_norm(network: nn.Module, skip: Collection[str] = ()) -> None:
    """Fix normalisation outside `skip`: running statistics are used and not updated, scale and shift not trained.

    To be called after each `network.train()`: a fixed BatchNorm is one in evaluation mode. Layers that tasks share
    must be fixed this way, or their statistics move with each task even where nothing is trained.
    """
    for name in norm_layers(network):
        if not is_below(name, skip):
            network.get_submodule(name).eval().requires_grad_(False)
