"""Parts of a network that each task has for itself: normalisation, decoders, residual blocks, whole networks.

The network holds the values of one task, and the bank those of all; a change of task copies them over. So parameters
stay the same objects for an optimiser, and values in the bank are out of its reach.

    add_parts(network, norm_layers(network))     # or ["backbone.up", "backbone.merge"]
    begin(network, "voc", start="coco")          # the parts become those of a new task
    ...                                          # train them
    finish(network, "voc")                       # their values are kept
    select(network, "coco")
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densecl.errors import SettingError, UnknownNameError
from densecl.masking.parametrized import below, check_task, make_room

NAME = "task_parts"  # of the bank in its network


class TaskParts(nn.Module):
    """The bank: in a state dict `TASK:path/of/the/tensor` for every finished task.

    Attributes:
        modules_of: dotted names of the parts in the network.
        active: task whose values the network holds, None when unknown.
        learning: task whose values are still changing in the network.
    """

    _place: Tensor

    def __init__(self, modules: Sequence[str]):
        super().__init__()
        self.modules_of = tuple(modules)
        self.active: str | None = None
        self.learning: str | None = None
        self.register_buffer("_place", torch.empty(0), persistent=False)  # moves with the network

    @property
    def tasks(self) -> list[str]:
        """Tasks whose values are kept."""
        return list(dict.fromkeys(name.partition(":")[0] for name in self._buffers if ":" in name))

    def live(self, network: nn.Module) -> dict[str, Tensor]:
        """The parts' parameters and buffers as the network has them, by `path/of/the/tensor`."""
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
    """Give a network a bank for some of its parts.

    Args:
        network: any; the bank becomes its child `task_parts`.
        modules: dotted names.

    Raises:
        SettingError: no part given, or the network has a bank already. AttributeError: there is no such part.
    """
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
    """The bank of a network.

    Raises:
        SettingError: it has none.
    """
    bank = getattr(network, NAME, None)
    if not isinstance(bank, TaskParts):
        raise SettingError("the network has no parts by task", "call add_parts first")
    return bank


def begin(network: nn.Module, task: str, start: str | None = None, reset: bool = False) -> None:
    """Let the network's parts be those of a new task, to be trained.

    Args:
        network: with a bank.
        task: its name, without dots or colons.
        start: a kept task whose values it starts from; None: the values the network has.
        reset: draw new values instead (`reset_parameters` of each layer, from torch's generator: seed it before).

    Raises:
        SettingError: a name that cannot be one. UnknownNameError: `start` was never learnt.
    """
    bank = parts(network)
    if ":" in check_task(task):
        raise SettingError(f"'{task}' cannot name a task", "use a name without colons")
    if start is not None:
        select(network, start)
    else:
        _keep_aside(network, bank)
    bank.active = bank.learning = task
    if reset:
        for name in bank.modules_of:
            for module in network.get_submodule(name).modules():
                if callable(draw := getattr(module, "reset_parameters", None)):
                    draw()


def finish(network: nn.Module, task: str) -> None:
    """Keep the values of the task that was begun.

    Raises:
        UnknownNameError: another task, or none, is being learnt.
    """
    bank = parts(network)
    if bank.learning != task:
        raise UnknownNameError("task", task, [bank.learning] if bank.learning else [], "it is not being learnt")
    if bank.active == task:  # else it was stored when the network became another task's
        bank.store(network, task)
    bank.learning = None


def select(network: nn.Module, task: str) -> None:
    """Let the network's parts be those of a task; what a task being learnt has reached is kept aside.

    Raises:
        UnknownNameError: the task was never learnt.
    """
    bank = parts(network)
    if task == bank.active == bank.learning:
        return
    if task not in bank.tasks:
        raise UnknownNameError("task", task, bank.tasks, "it was never learnt")
    _keep_aside(network, bank)
    bank.fetch(network, task)
    bank.active = task


def stored_bytes(network: nn.Module, task: str) -> int:
    """Bytes the bank holds for a task.

    Raises:
        UnknownNameError: the task was never learnt.
    """
    bank = parts(network)
    if task not in bank.tasks:
        raise UnknownNameError("task", task, bank.tasks, "it was never learnt")
    kept = [tensor for name, tensor in bank.named_buffers() if name.startswith(f"{task}:")]
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def _keep_aside(network: nn.Module, bank: TaskParts) -> None:
    """Before the network becomes another task's: what the one being learnt has reached."""
    if bank.learning is not None and bank.active == bank.learning:
        bank.store(network, bank.learning)
