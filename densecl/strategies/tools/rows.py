"""Heads whose rows a method reads or makes."""

import torch

from densecl.errors import SettingError
from densecl.models.heads import is_pointwise
from densecl.strategies.base import Strategy


def require_rows(strategy: Strategy, method: str) -> None:
    """Refuse a network whose heads are not bare 1x1 convolutions with bias."""
    with torch.device("meta"):
        head = strategy.build_head(strategy.network.backbone.channels, 1)
    if not is_pointwise(head):
        raise SettingError(
            f"{method} needs heads that are 1x1 convolutions with bias, and here they are {type(head).__name__}",
            "use a backbone with such heads, such as bisenet or deeplabv3",
        )


def require_copies(strategy: Strategy, method: str) -> None:
    """Refuse a network whose heads do not repeat an output where a row of each of their weights is repeated."""
    with torch.device("meta"):
        one, two = (strategy.build_head(strategy.network.backbone.channels, n).state_dict() for n in (1, 2))
    if any(value.shape[1:] != two[name].shape[1:] for name, value in one.items()):
        raise SettingError(
            f"{method} needs heads whose outputs can be copied one by one",
            "use a backbone with such heads, such as bisenet or deeplabv3",
        )
