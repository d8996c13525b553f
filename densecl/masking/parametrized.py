"""Base of masks and ownership maps: a view on the weight of a layer, and its way out of and into a state dict."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from densecl.errors import SettingError
from densecl.masking.bits import bits_in, unpack

MASKABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
HEADS = ("heads",)  # the last layer of a network of this package
Key = tuple[object, ...]


class WeightView(nn.Module):
    """A parametrization of one weight that shows a part of it to each task; the values shown last are cached.

    The cache is overwritten at the next change of the view. It is no part of a state dict or of a copy.
    """

    _place: Tensor

    def __init__(self, shape: torch.Size):
        super().__init__()
        self.shape = shape  # of the weight
        self.register_buffer("_place", torch.empty(0), persistent=False)  # moves with the network
        self._shown: Tensor | None = None
        self._key: Key | None = None

    def compose(self, weight: Tensor, out: Tensor | None) -> Tensor:
        """The part of `weight` that the active task sees, without gradient; into `out` where that is given."""
        raise NotImplementedError

    def view_key(self) -> Key:
        """The state that the view depends on, besides the weight."""
        raise NotImplementedError

    def shown(self, weight: Tensor) -> Tensor:
        """The active task's view, computed again where task or weight have changed."""
        key = (*self.view_key(), weight._version, weight.data_ptr(), weight.device, weight.dtype)
        if self._shown is None or key != self._key:
            with torch.inference_mode(False), torch.no_grad():
                old = self._shown
                fits = old is not None and (old.device, old.dtype) == (weight.device, weight.dtype)
                self._shown = self.compose(weight.detach(), old if fits else None)
            self._key = key
        return self._shown

    def buffer(self, name: str) -> Tensor:
        """A buffer by name."""
        return cast("Tensor", self._buffers[name])

    def unpacked(self, name: str) -> Tensor:
        """The numbers packed in a buffer, in the weight's shape: bool for one bit, else uint8."""
        packed = self.buffer(name)
        return unpack(packed, self.shape, bits_in(packed, self.shape.numel()))

    def adopt(self, tensors: dict[str, Tensor]) -> None:
        """Make room for the tensors of a state dict, by their names here, before they are copied in."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        self.adopt(below(state_dict, prefix))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy: all but the cache."""
        return {**self.__dict__, "_shown": None, "_key": None}


def below(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """The tensors of a state dict below a prefix, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def make_room(module: nn.Module, tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Give a module persistent buffers of these names, shapes and types; those that agree are left alone."""
    extra = module._non_persistent_buffers_set
    for name in [name for name in module._buffers if name not in extra and name not in tensors]:
        delattr(module, name)
    for name, value in tensors.items():
        buffer = module._buffers.get(name)
        if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
            module.register_buffer(name, torch.empty_like(value, device=device))


View = TypeVar("View", bound=WeightView)


def maskable(network: nn.Module, skip: Collection[str] = HEADS) -> dict[str, nn.Module]:
    """Convolutions, transposed convolutions and linear layers by dotted name, but those in or below `skip`."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, MASKABLE) and not is_below(name, skip)
    }


def is_below(name: str, places: Collection[str]) -> bool:
    """True if a dotted name is one of the places or below one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def add_views(network: nn.Module, kind: type[WeightView], skip: Collection[str], purpose: str) -> None:
    """Put views on the weights of a network; they show the weights themselves until a task begins."""
    layers = maskable(network, skip)
    if not layers:
        raise SettingError(f"{type(network).__name__} has no layer to {purpose} besides {', '.join(skip)}")
    for module in layers.values():
        weight = cast("Tensor", module.weight)
        parametrize.register_parametrization(module, "weight", kind(weight.shape).to(weight.device), unsafe=True)


def views(network: nn.Module, kind: type[View]) -> Iterator[tuple[str, Tensor, View]]:
    """Of every view of a kind: the name of the parameter as it was before, the weight itself, the view."""
    for name, _module, weight, view in _viewed(network, kind):
        yield f"{name}.weight" if name else "weight", weight, view


def fix_layers(network: nn.Module, kind: type[WeightView], weights: bool = True) -> None:
    """Train no bias of the layers with a view of this kind, nor their weights unless `weights` is False."""
    for _, module, weight, _ in _viewed(network, kind):
        if weights:
            weight.requires_grad_(False)
        if isinstance(module.bias, nn.Parameter):
            module.bias.requires_grad_(False)


def _viewed(network: nn.Module, kind: type[View]) -> Iterator[tuple[str, nn.Module, Tensor, View]]:
    for name, module in network.named_modules():
        parametrizations: Any = getattr(getattr(module, "parametrizations", None), "weight", None)
        for view in parametrizations or ():
            if isinstance(view, kind):
                yield name, module, parametrizations.original, view


def check_task(task: str) -> str:
    """The name of a task, which becomes a part of names in a state dict; SettingError if it is empty or has a dot."""
    if not task or "." in task:
        raise SettingError(f"'{task}' cannot name a task", "use a name without dots")
    return task
