"""Refusals of what cannot be right when a batch is learnt in parts: in several passes, or by several processes."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from densecl.errors import SettingError
from densecl.settings.recipe import TrainingSettings
from densecl.tasks import Task
from densecl.training import distributed


def check_parts(
    settings: TrainingSettings, stock: Sequence[Any], tasks: Iterable[Task], strategy: Any, device: torch.device
) -> None:
    """Check that a method allows gradient accumulation, and several processes where there are some.

    Args:
        settings: of training.
        stock: stock Avalanche plugins.
        tasks: of the stream.
        strategy: the class.
        device: of this process.

    Raises:
        SettingError: saying why not and what to do.
    """
    world = distributed.world()
    if settings.accumulation > 1 and stock:
        raise SettingError(
            "training.accumulation does not go with a stock Avalanche plugin: its penalty would count once a part",
            "use a smaller training.batch instead",
        )
    if settings.accumulation > 1 and any(task.state_dict() for task in tasks):
        raise SettingError(
            "training.accumulation does not go with an adversarial loss: its critic would learn once a part",
            "use a smaller training.batch instead",
        )
    if settings.accumulation > 1 and strategy.overrides("prepare_batch"):
        raise SettingError(
            f"training.accumulation does not go with {strategy.__name__}: it changes targets or weights of a "
            "batch, and the shares of its parts would be those from before",
            "use a smaller training.batch instead",
        )
    if world > 1 and stock:
        raise SettingError(
            f"{type(stock[0]).__name__} is a stock Avalanche plugin: it has no state to share, and would see "
            f"a part of each batch in each of the {world} processes without a word",
            "run it in one process, without torchrun",
        )
    least = world * distributed.least_share(device)
    if world > 1 and settings.batch < least:
        raise SettingError(
            f"training.batch={settings.batch} is too small for {world} processes",
            f"BatchNorm needs {least // world} image(s) in each: training.batch={least}, or fewer processes",
        )
