"""BatchNorm that later steps leave as it is."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def fix_statistics(network: nn.Module) -> None:
    """Have BatchNorm normalise as in evaluation while the rest trains."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def fix_affine(network: nn.Module) -> None:
    """Keep scale and shift of BatchNorm out of training."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.requires_grad_(False)
