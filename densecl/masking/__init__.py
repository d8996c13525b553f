"""Masks on weights: Piggyback (`binary`), PackNet (`packnet`), parts by task (`parts`), files and analyses."""

from torch import nn

from densecl.masking.binary import MaskedWeight, MaskSettings
from densecl.masking.packnet import OwnedWeight
from densecl.masking.parametrized import WeightView, maskable, views
from densecl.masking.parts import TaskParts

__all__ = ["MaskSettings", "MaskedWeight", "OwnedWeight", "TaskParts", "maskable", "weight_shapes"]


def weight_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the masked or owned weights of a network by parameter name, for `store.load_masks`."""
    return {name: tuple(weight.shape) for name, weight, _ in views(network, WeightView)}
