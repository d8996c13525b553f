"""Torch's optimisers, without torch's compiler: their first call imports it, 2 seconds that no run here needs."""

import inspect
from typing import TypeVar

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=Optimizer)
_GUARDED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")  # wrapped so that no compiler enters them


def plain(cls: type[Kind]) -> type[Kind]:
    """The optimiser of the same name that computes the same; it cannot be differentiated through nor compiled."""
    bare = {name: inspect.unwrap(getattr(cls, name)) for name in _GUARDED}
    return type(cls.__name__, (cls,), {**bare, "step": torch.no_grad()(inspect.unwrap(cls.step))})  # type: ignore[return-value]


SGD, Adam, AdamW = plain(torch.optim.SGD), plain(torch.optim.Adam), plain(torch.optim.AdamW)
