"""The state of a loop at the end of an epoch, from which a killed run goes on to the same bits.

No generator is in it: every draw derives from seed, step, epoch and index. No teacher either: it is the kept network of
the previous step.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from densecl.training.loop import Loop


def of_loop(loop: "Loop") -> dict[str, Any]:
    """All that training needs to go on from here: tensors, numbers, strings and containers."""
    scaler = loop.precision.scaler
    return {
        "step": loop.step,
        "epoch": loop.epoch,
        "iterations": loop.iterations,
        "network": loop.network.state_dict(),
        "optimizer": loop.optimizer.state_dict(),
        "schedule": loop.schedule.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "method": of_method(loop),
        "task": loop.task.state_dict(),  # a critic
    }


def restore(loop: "Loop", saved: dict[str, Any]) -> None:
    """Restore all of `of_loop` but the method's part, which decides what the optimiser holds."""
    loop.network.load_state_dict(saved["network"])
    loop.optimizer.load_state_dict(saved["optimizer"])
    loop.schedule.load_state_dict(saved["schedule"])
    if loop.precision.scaler is not None and saved["scaler"] is not None:
        loop.precision.scaler.load_state_dict(saved["scaler"])
    loop.task.load_state_dict(saved.get("task", {}))
    loop.epoch, loop.iterations = saved["epoch"], saved["iterations"]


def of_method(loop: "Loop") -> dict[str, Any]:
    """The state of strategy and plugins, by name, and the names of frozen parameters."""
    frozen = [name for name, p in loop.network.named_parameters() if not p.requires_grad]
    plugins = {f"plugin:{plugin.name}": plugin.state_dict() for plugin in loop.plugins}
    return {"strategy": loop.strategy.state_dict(), "frozen": frozen, **plugins}


def restore_method(loop: "Loop", saved: dict[str, Any]) -> None:
    """Restore what `of_method` returned, on the loop's device."""
    saved = on_device(saved, loop.device)
    for name, parameter in loop.network.named_parameters():
        parameter.requires_grad_(name not in saved.get("frozen", ()))
    loop.strategy.load_state_dict(saved["strategy"])
    for plugin in loop.plugins:
        plugin.load_state_dict(saved[f"plugin:{plugin.name}"])


def on_device(value: Any, device: torch.device) -> Any:
    """Tensors of nested containers moved to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_device(item, device) for item in value)
    return value
