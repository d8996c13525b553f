"""Tensors that each task adds to the weights of a fixed network: factors of low rank, or 1x1 kernels beside 3x3 ones.

add_views(network, LowRank, HEADS, "adapt")           # the network works as before until a task begins
begin(network, LowRank, "voc", low_rank_start(8, seed), scale=1.0)
...                                                   # train parameters(network, LowRank, "voc"), head, normalisation
finish(network, LowRank, "voc")
select(network, LowRank, "voc")                       # the sum is computed here, once; None: the network alone
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl.masking.parametrized import Key, WeightView, check_task, fix_layers, views

Start = Callable[[Tensor], dict[str, Tensor]]  # the weight of a layer -> a task's first values, by kind


class AddedWeight(WeightView):
    """The weight of a layer with what the active task adds to it.

    In a state dict `KIND:TASK` for each of `kinds`. Loading takes over the tasks that the state dict has. While one of
    its tensors is trained the sum has a gradient; else it is computed once.
    """

    kinds: ClassVar[tuple[str, ...]]

    def __init__(self, shape: torch.Size):
        super().__init__(shape)
        self.active: str | None = None

    def combined(self, weight: Tensor, **tensors: Tensor) -> Tensor:
        """The sum of the weight and what these tensors of a task stand for."""
        raise NotImplementedError

    def of(self, task: str | None) -> dict[str, nn.Parameter]:
        """The tensors of a task by kind; of a task that adds nothing here, none."""
        found = {kind: self._parameters.get(f"{kind}:{task}") for kind in self.kinds}
        return {kind: parameter for kind, parameter in found.items() if parameter is not None}

    def begin(self, task: str, tensors: dict[str, Tensor]) -> None:
        """Start a task with these tensors; an earlier attempt is dropped."""
        self.drop(task)
        for kind, tensor in tensors.items():
            self.register_parameter(f"{kind}:{task}", nn.Parameter(tensor))
        self.active = task

    def drop(self, task: str, kinds: Sequence[str] = ()) -> None:
        """Forget what a task adds, or some kinds of its tensors."""
        for kind in kinds or self.kinds:
            if f"{kind}:{task}" in self._parameters:
                delattr(self, f"{kind}:{task}")

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the active task sees it."""
        tensors = self.of(self.active)
        if not tensors:
            return weight
        if any(tensor.requires_grad for tensor in tensors.values()):
            return self.combined(weight, **tensors)
        return self.shown(weight)

    def view_key(self) -> Key:
        """See `WeightView`."""
        return (self.active, *((t._version, t.data_ptr()) for t in self.of(self.active).values()))

    def compose(self, weight: Tensor, out: Tensor | None) -> Tensor:
        """See `WeightView`."""
        result = self.combined(weight, **self.of(self.active))
        return result if out is None else out.copy_(result)

    def adopt(self, tensors: dict[str, Tensor]) -> None:
        """See `WeightView`."""
        for name in [name for name in self._parameters if name not in tensors]:
            delattr(self, name)
        for name, value in tensors.items():
            if name not in self._parameters:
                empty = torch.empty_like(value, device=self._place.device)
                self.register_parameter(name, nn.Parameter(empty, requires_grad=False))


class LowRank(AddedWeight):
    """W + scale * up @ down: the first dimension of the weight by rank, and rank by all others as one."""

    kinds = ("down", "up")
    scale = 1.0

    def combined(self, weight: Tensor, **tensors: Tensor) -> Tensor:
        """See `AddedWeight`."""
        with torch.autocast(weight.device.type, enabled=False):  # the same bits in training and evaluation
            return torch.addmm(weight.flatten(1), tensors["up"], tensors["down"], alpha=self.scale).view(self.shape)


class Pointwise(AddedWeight):
    """A kernel of odd size with a 1x1 kernel at its centre: the sum of both convolutions, at the same stride."""

    kinds = ("point",)

    def combined(self, weight: Tensor, **tensors: Tensor) -> Tensor:
        """See `AddedWeight`."""
        height, width = (size // 2 for size in self.shape[2:])
        return weight + F.pad(tensors["point"], (width, width, height, height))


def is_3x3(module: nn.Module) -> bool:
    """True for a 3x3 convolution."""
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)


def low_rank_shapes(shape: Sequence[int], rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of `down` and `up` for a weight of this shape; the rank is at most the weight's own."""
    rows, columns = shape[0], torch.Size(shape[1:]).numel()
    rank = min(rank, rows, columns)
    return (rank, columns), (rows, rank)


def low_rank_start(rank: int, seed: int) -> Start:
    """The first values of factors: `down` normal with standard deviation 1 / rank, `up` zero."""
    generator = torch.Generator().manual_seed(seed)

    def start(weight: Tensor) -> dict[str, Tensor]:
        down, up = low_rank_shapes(weight.shape, rank)
        drawn = torch.empty(down).normal_(0, 1 / down[0], generator=generator)
        return {"down": drawn.to(weight), "up": weight.new_zeros(up)}

    return start


def point_start(weight: Tensor) -> dict[str, Tensor]:
    """The first value of a 1x1 kernel: zero."""
    return {"point": weight.new_zeros((*weight.shape[:2], 1, 1))}


def begin(network: nn.Module, kind: type[AddedWeight], task: str, start: Start, **values: float) -> None:
    """Give a task tensors at every view of a kind, make it active and fix weights and biases.

    `values` are attributes of the views (`scale`, `threshold`).
    """
    check_task(task)
    for _, weight, view in views(network, kind):
        vars(view).update(values)
        view.begin(task, start(weight.detach()))
    fix_layers(network, kind)


def finish(network: nn.Module, kind: type[AddedWeight], task: str) -> None:
    """Train the tensors of a task no longer."""
    for parameter in parameters(network, kind, task):
        parameter.requires_grad_(False)


def select(network: nn.Module, kind: type[AddedWeight], task: str | None) -> None:
    """Add what a task has, or nothing for None; the sums of a finished task are computed here, once."""
    for _, weight, view in views(network, kind):
        view.active = task
        if (tensors := view.of(task)) and not any(tensor.requires_grad for tensor in tensors.values()):
            view.shown(weight)


def parameters(network: nn.Module, kind: type[AddedWeight], task: str) -> list[nn.Parameter]:
    """The tensors that a task adds."""
    return [parameter for _, _, view in views(network, kind) for parameter in view.of(task).values()]
