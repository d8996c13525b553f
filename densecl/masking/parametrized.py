"""What masks and ownership maps share: how they sit on a layer's weight, and how they come back from a state dict."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from densecl.errors import SettingError

MASKABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
HEADS = ("heads",)  # the last layer of a network of this package
Key = tuple[object, ...]


class WeightView(nn.Module):
    """A parametrization of one weight that shows, for each task, a part of it; the values shown last are kept.

    Kept values are written over at the next change of the view. They are no part of a state dict or of a copy.

    Attributes:
        shape: of the weight.
    """

    _place: Tensor

    def __init__(self, shape: torch.Size):
        super().__init__()
        self.shape = shape
        self.register_buffer("_place", torch.empty(0), persistent=False)  # moves with the network
        self._shown: Tensor | None = None
        self._key: Key | None = None

    def compose(self, weight: Tensor, out: Tensor | None) -> Tensor:
        """The part of `weight` that the active task sees, without gradient, into `out` where that is given."""
        raise NotImplementedError

    def view_key(self) -> Key:
        """What the view depends on, besides the weight."""
        raise NotImplementedError

    def shown(self, weight: Tensor) -> Tensor:
        """The active task's view: computed when task or weight have changed since."""
        key = (*self.view_key(), weight._version, weight.data_ptr(), weight.device, weight.dtype)
        if self._shown is None or key != self._key:
            with torch.inference_mode(False), torch.no_grad():
                old = self._shown
                fits = old is not None and (old.device, old.dtype) == (weight.device, weight.dtype)
                self._shown = self.compose(weight.detach(), old if fits else None)
            self._key = key
        return self._shown

    def adopt(self, found: dict[str, Tensor]) -> None:
        """Make room for the tensors of a state dict, given by their names here, before they are copied in."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.adopt(below(state_dict, prefix))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        """For copies: all but the kept values."""
        return {**self.__dict__, "_shown": None, "_key": None}


def below(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors of a state dict whose names begin so, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def make_room(module: nn.Module, found: Mapping[str, Tensor], device: torch.device) -> None:
    """Give a module the persistent buffers of `found`, by name, shape and type; those that agree are left alone."""
    extra = module._non_persistent_buffers_set
    for name in [name for name in module._buffers if name not in extra and name not in found]:
        delattr(module, name)
    for name, value in found.items():
        have = module._buffers.get(name)
        if have is None or (have.shape, have.dtype) != (value.shape, value.dtype):
            module.register_buffer(name, torch.empty_like(value, device=device))


View = TypeVar("View", bound=WeightView)


def maskable(network: nn.Module, skip: Collection[str] = HEADS) -> dict[str, nn.Module]:
    """Convolutions, transposed convolutions and linear layers by dotted name.

    Args:
        network: any.
        skip: dotted names that are left out with all below them: the last layer, and what is trained from scratch.
    """
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, MASKABLE) and not is_below(name, skip)
    }


def is_below(name: str, places: Collection[str]) -> bool:
    """Whether a dotted name is one of some places or below one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def register(module: nn.Module, view: WeightView) -> None:
    """Put a view on the weight of a layer, unchecked: it shows the weight itself until a task is active."""
    parametrize.register_parametrization(module, "weight", view, unsafe=True)


def fix_layers(network: nn.Module, kind: type[WeightView], weights: bool = True) -> None:
    """Train neither weight nor bias of the layers with a view of this kind, or only no bias."""
    for module in network.modules():
        lists = _lists(module)
        if "weight" in lists and any(isinstance(view, kind) for view in lists["weight"]):
            if weights:
                lists["weight"].original.requires_grad_(False)
            if isinstance(module.bias, nn.Parameter):
                module.bias.requires_grad_(False)


def _lists(module: nn.Module) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", getattr(module, "parametrizations", None) or {})


def views(network: nn.Module, kind: type[View]) -> Iterator[tuple[str, Tensor, View]]:
    """(name of the parameter as it was before, the weight itself, its view) of every layer that has one of a kind."""
    for name, module in network.named_modules():
        lists = _lists(module)
        if "weight" in lists:
            for view in lists["weight"]:
                if isinstance(view, kind):
                    yield f"{name}.weight" if name else "weight", lists["weight"].original, view


def check_task(task: str) -> str:
    """The name of a task, as parts of names in a state dict.

    Raises:
        SettingError: it is empty or has a dot.
    """
    if not task or "." in task:
        raise SettingError(f"'{task}' cannot name a task", "use a name without dots")
    return task
