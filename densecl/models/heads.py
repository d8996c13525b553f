"""Classifiers that grow with the steps, at the main place and at each auxiliary one."""

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl.errors import SettingError, UnknownNameError

PREFIX = "task-"  # of a task's name in a state dict: no attribute of a ModuleDict begins so
BuildHead = Callable[[int, int], nn.Module]


def pointwise(channels: int, outputs: int) -> nn.Module:
    """The default head: a 1x1 convolution."""
    return nn.Conv2d(channels, outputs, 1)


class ImageHead(nn.Module):
    """The head of a task of whole images: global average pooling and a linear layer, (B, outputs, 1, 1)."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.linear = nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, outputs, 1, 1)."""
        return self.linear(x.mean((2, 3), keepdim=True))


class Heads(nn.Module):
    """One module for each step at each place, the main one first; outputs are joined in the order of the steps."""

    def __init__(self, channels: int, auxiliary_channels: Sequence[int] = ()):
        super().__init__()
        self.channels = (channels, *auxiliary_channels)
        self.places = nn.ModuleList(nn.ModuleList() for _ in self.channels)
        self.outputs: list[int] = []  # new ones of each step

    @property
    def n_outputs(self) -> int:
        """Output channels grown so far."""
        return sum(self.outputs)

    @property
    def image_level(self) -> bool:
        """True if outputs are of whole images."""
        return any(isinstance(head, ImageHead) for head in self._places()[0])

    def grow(self, outputs: int, build_head: BuildHead | None = None, device: torch.device | str | None = None) -> None:
        """Add a step's outputs at every place; a step with 0 gets no module, those of earlier steps are not touched.

        `build_head` makes a module from (B, channels, h, w) to (B, outputs, h, w).
        """
        if outputs < 0:
            raise ValueError(f"cannot grow by {outputs} outputs")
        self.outputs.append(outputs)
        if outputs:
            for channels, place in zip(self.channels, self._places(), strict=True):
                place.append((build_head or pointwise)(channels, outputs).to(device).train(self.training))

    def earlier(self) -> list[nn.Module]:
        """The modules of the steps before the newest, at all places."""
        count = sum(outputs > 0 for outputs in self.outputs[:-1])
        return [module for place in self._places() for module in place[:count]]

    def init_from_background(self) -> None:
        """Start the newest step's outputs from the background's (MiB: Cermelli et al., CVPR 2020, eq. 10).

        At every place w_new = w_bkg and b_new = b_bkg = b_bkg - log(N_new + 1): the background's probability is shared
        out evenly among itself and the new classes, all others keep theirs. Nothing happens at the first step, and at
        one without outputs. Heads that are not convolutions with bias are refused.
        """
        if len(self.outputs) < 2 or self.outputs[-1] == 0 or self.outputs[-1] == self.n_outputs:
            return
        pairs = [(place[0], place[-1]) for place in self._places()]
        if not all(_is_convolution(head) for pair in pairs for head in pair):
            raise SettingError(
                "init_from_background needs heads that are convolutions with bias, such as 1x1 convolutions",
                "drop build_head or initialise these heads in the strategy",
            )
        with torch.no_grad():
            for first, newest in cast(list[tuple[nn.Conv2d, nn.Conv2d]], pairs):
                assert first.bias is not None
                assert newest.bias is not None
                first.bias[0] -= math.log(self.outputs[-1] + 1)
                newest.weight.copy_(first.weight[:1].expand_as(newest.weight))
                newest.bias.copy_(first.bias[:1].expand_as(newest.bias))

    def forward(self, decoded: Tensor, auxiliary: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Logits (B, C, h, w) of (B, D, h, w) at the main place, then at each auxiliary one, if its maps are given."""
        features = (decoded, *auxiliary)
        if len(features) not in (1, len(self.places)):
            raise ValueError(f"{len(auxiliary)} auxiliary features for {len(self.places) - 1} auxiliary heads")
        return tuple(_apply(place, x) for place, x in zip(self._places(), features, strict=False))

    def _places(self) -> list[nn.ModuleList]:
        return cast(list[nn.ModuleList], list(self.places))


class TaskHeads(nn.Module):
    """Heads of each task of a sequence, one of which is active; the others are kept as they are."""

    def __init__(self, channels: int, auxiliary_channels: Sequence[int] = (), make: "MakeHeads" = Heads):
        super().__init__()
        self.channels, self.make = (channels, *auxiliary_channels), make
        self.tasks = nn.ModuleDict()  # by `PREFIX` and the task's name
        self.active: str | None = None

    @property
    def names(self) -> list[str]:
        """The tasks that have heads, in order of arrival."""
        return [key.removeprefix(PREFIX) for key in self.tasks]

    @property
    def n_outputs(self) -> int:
        """Output channels of the active task."""
        return 0 if self.active is None else self.of(self.active).n_outputs

    @property
    def image_level(self) -> bool:
        """True if the active task is of whole images."""
        return self.active is not None and self.of(self.active).image_level

    def begin(self, task: str) -> None:
        """Give a task heads without outputs yet, and make it active."""
        self.tasks[PREFIX + task] = self.make(self.channels[0], self.channels[1:])
        self.active = task

    def select(self, task: str) -> None:
        """Make a task active; it must have been learnt."""
        self.of(task)
        self.active = task

    def of(self, task: str) -> Heads:
        """The heads of a task; it must have been learnt."""
        if PREFIX + task not in self.tasks:
            raise UnknownNameError("task", task, self.names, "it was never learnt")
        return cast(Heads, self.tasks[PREFIX + task])

    def grow(self, outputs: int, build_head: BuildHead | None = None, device: torch.device | str | None = None) -> None:
        """Grow the heads of the active task; see `Heads.grow`."""
        assert self.active is not None
        self.of(self.active).grow(outputs, build_head, device)

    def earlier(self) -> list[nn.Module]:
        """The heads of all tasks but the active one."""
        return [heads for key, heads in self.tasks.items() if key != f"{PREFIX}{self.active}"]

    def forward(self, decoded: Tensor, auxiliary: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Logits of the active task; see `Heads.forward`."""
        assert self.active is not None
        return self.of(self.active)(decoded, auxiliary)


MakeHeads = Callable[[int, Sequence[int]], Heads | TaskHeads]


def _apply(place: nn.ModuleList, x: Tensor) -> Tensor:
    """Outputs of all steps; plain 1x1 convolutions are done as one, which reads the features once."""
    if len(place) == 0:
        raise ValueError("the network has no outputs yet; call grow first")
    if len(place) > 1 and all(is_pointwise(head) for head in place):
        heads = [cast(nn.Conv2d, head) for head in place]
        bias = torch.cat([cast(Tensor, head.bias) for head in heads])
        return F.conv2d(x, torch.cat([head.weight for head in heads]), bias)
    parts = [head(x) for head in place]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _is_convolution(head: nn.Module) -> TypeGuard[nn.Conv2d]:
    """A bare convolution with bias: its outputs can be copied one by one."""
    return type(head) is nn.Conv2d and head.groups == 1 and head.bias is not None


def is_pointwise(head: nn.Module) -> bool:
    """A bare 1x1 convolution with bias: no hook that going round `forward` would skip."""
    return (
        _is_convolution(head)
        and head.kernel_size == head.stride == (1, 1)
        and head.padding == (0, 0)
        and not (head._forward_hooks or head._forward_pre_hooks or head._backward_hooks or head._backward_pre_hooks)
    )
