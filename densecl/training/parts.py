"""Refusals of methods that cannot learn a batch in parts: in passes or processes, or from some of its pixels."""

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
    """SettingError where a method does not allow gradient accumulation, or the processes that there are.

    `stock` are Avalanche's plugins, `strategy` is a class.
    """
    reason = ""
    if stock:
        reason = "a stock Avalanche plugin: its penalty would count once a part"
    elif any(task.state_dict() for task in tasks):
        reason = "an adversarial loss: its critic would learn once a part"
    elif strategy.whole_batches:
        reason = f"{strategy.__name__}: a term of its loss needs all of a batch at once"
    elif strategy.overrides("prepare_batch"):
        reason = (
            f"{strategy.__name__}: it changes targets or weights of a batch, and the shares of its parts would be "
            "those from before"
        )
    if settings.accumulation > 1 and reason:
        raise SettingError(f"training.accumulation does not go with {reason}", "use a smaller training.batch instead")
    other = next((task for task in tasks if task.kind != "segmentation"), None)
    if settings.loss_stride > 1 and other is not None:
        fault = f"training.loss_stride={settings.loss_stride}: '{other.name}' is a task of kind {other.kind}"
        raise SettingError(fault, "it is for segmentation alone; leave it out")
    if settings.loss_stride > 1 and stock:
        fault = f"training.loss_stride={settings.loss_stride}: {type(stock[0]).__name__} is a stock Avalanche plugin"
        raise SettingError(fault, "it takes labels for those of all pixels; set training.loss_stride=1")
    world = distributed.world()
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
