"""What cannot be right when a batch is learnt in parts: in several passes, or by several processes."""

from collections.abc import Iterable, Sequence

import torch
from avalanche.core import BasePlugin

from densecl.errors import SettingError
from densecl.settings.recipe import TrainingSettings
from densecl.tasks import Task
from densecl.training import distributed


def check_parts(
    settings: TrainingSettings,
    plugins: Sequence[BasePlugin],
    tasks: Iterable[Task],
    method: str,
    changes_targets: bool,
    device: torch.device,
) -> None:
    """Refuse what cannot be right when a batch is learnt in parts.

    Raises:
        SettingError: saying why and what to do.
    """
    world = distributed.world()
    stock = [plugin for plugin in plugins if not getattr(plugin, "dense", False)]
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
    if settings.accumulation > 1 and changes_targets:
        raise SettingError(
            f"training.accumulation does not go with {method}: it changes targets or weights of a "
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
