"""Parts of a network that each task has of its own: normalisation, decoders, residual blocks, whole networks.

The network holds the values of one task, and the bank those of all; a change of task copies them. So parameters stay
the same objects for an optimiser, which cannot reach the values in the bank.

    add_parts(network, norm_layers(network))     # or ["backbone.up", "backbone.merge"]
    begin(network, "voc", start="coco")          # the parts become those of a new task
    ...                                          # train them
    finish(network, "voc")                       # their values are kept
    select(network, "coco")
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from densecl.errors import SettingError, UnknownNameError
from densecl.masking.parametrized import below, check_task, is_below, make_room

NAME = "task_parts"  # of the bank in its network
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)  # the first: BatchNorm, SyncBatchNorm and InstanceNorm


class TaskParts(nn.Module):
    """The bank: in a state dict `TASK:path/of/the/tensor` for every finished task."""

    _place: Tensor

    def __init__(self, modules: Sequence[str]):
        super().__init__()
        self.modules_of = tuple(modules)  # dotted names of the parts in the network
        self.active: str | None = None  # the task whose values the network holds; None: unknown
        self.learning: str | None = None  # the task whose values are still changing in the network
        self.register_buffer("_place", torch.empty(0), persistent=False)  # moves with the network

    @property
    def tasks(self) -> list[str]:
        """Tasks whose values are kept."""
        return list(dict.fromkeys(name.partition(":")[0] for name in self._buffers if ":" in name))

    def live(self, network: nn.Module) -> dict[str, Tensor]:
        """Parameters and buffers of the parts in the network, by `path/of/the/tensor`."""
        return {
            f"{name}.{key}".replace(".", "/"): tensor
            for name in self.modules_of
            for key, tensor in network.get_submodule(name).state_dict(keep_vars=True).items()
        }

    def store(self, network: nn.Module, task: str) -> None:
        """Copy the network's values into the bank."""
        for path, tensor in self.live(network).items():
            self.register_buffer(f"{task}:{path}", tensor.detach().clone())

    def fetch(self, network: nn.Module, task: str) -> None:
        """Copy the bank's values into the network."""
        with torch.no_grad():
            for path, tensor in self.live(network).items():
                tensor.copy_(self._buffers[f"{task}:{path}"])  # type: ignore[arg-type]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        make_room(self, below(state_dict, prefix), self._place.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def add_parts(network: nn.Module, modules: Sequence[str]) -> TaskParts:
    """Give a network a bank for the parts of these dotted names, once; it becomes the child `task_parts`."""
    if not modules:
        raise SettingError(f"{type(network).__name__} has no such parts for tasks of their own")
    if hasattr(network, NAME):
        raise SettingError("the network has parts by task already")
    for name in modules:
        network.get_submodule(name)
    bank = TaskParts(modules)
    device = next((p.device for p in network.parameters()), None)
    network.add_module(NAME, bank.to(device))
    return bank


def parts(network: nn.Module) -> TaskParts:
    """The bank of a network; SettingError if it has none."""
    bank = getattr(network, NAME, None)
    if not isinstance(bank, TaskParts):
        raise SettingError("the network has no parts by task", "call add_parts first")
    return bank


def begin(network: nn.Module, task: str, start: str | None = None) -> None:
    """Make the parts those of a new task, with the values of task `start`, or with those that the network has."""
    bank = parts(network)
    if ":" in check_task(task):
        raise SettingError(f"'{task}' cannot name a task", "use a name without colons")
    if start is not None:
        select(network, start)
    else:
        _keep_aside(network, bank)
    bank.active = bank.learning = task


def finish(network: nn.Module, task: str) -> None:
    """Keep the values of the task that was begun; UnknownNameError if it is not being learnt."""
    bank = parts(network)
    if bank.learning != task:
        raise UnknownNameError("task", task, [bank.learning] if bank.learning else [], "it is not being learnt")
    if bank.active == task:  # else it was stored when the network became another task's
        bank.store(network, task)
    bank.learning = None


def select(network: nn.Module, task: str) -> None:
    """Fetch the parts of a task that was learnt; those of a task being learnt are stored before."""
    bank = parts(network)
    if task == bank.active == bank.learning:
        return
    if task not in bank.tasks:
        raise UnknownNameError("task", task, bank.tasks, "it was never learnt")
    _keep_aside(network, bank)
    bank.fetch(network, task)
    bank.active = task


def _keep_aside(network: nn.Module, bank: TaskParts) -> None:
    """Store the values of the task being learnt, before the network becomes another task's."""
    if bank.learning is not None and bank.active == bank.learning:
        bank.store(network, bank.learning)


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
