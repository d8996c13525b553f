"""WSN: each task chooses the weights of largest score in one network (Kang et al., ICML 2022, section 3).

add_views(network, SubnetWeight, HEADS, "mask")
begin(network, "voc", sparsity=0.5, seed=0)     # all weights that no task has chosen are trained, and the scores
...
finish(network, "voc")                          # a bit a weight stays; what the task chose never changes again
select(network, "voc")
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from densecl.losses.reduction import widen
from densecl.masking.bits import multiply, pack
from densecl.masking.parametrized import Key, WeightView, check_task, fix_layers, make_room, views

MASK, LAST, SCORES = "mask:", "last", "scores"  # names in a state dict


class _Subnet(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, sparsity: float) -> Tensor:
        ctx.save_for_backward(scores)
        return chosen(scores, sparsity).to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        (scores,) = ctx.saved_tensors
        return grad * scores.sign(), None


class _Protected(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, taken: Tensor) -> Tensor:
        ctx.save_for_backward(taken)
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        return protect(grad, *ctx.saved_tensors), None


def chosen(scores: Tensor, sparsity: float) -> Tensor:
    """True where |score| is at least the k-th smallest of n: k = 1 + round(sparsity (n - 1)), half to even."""
    size = scores.detach().abs()
    return size >= size.flatten().kthvalue(1 + round(sparsity * (size.numel() - 1))).values


def subnet(scores: Tensor, *, sparsity: float) -> Tensor:
    """The mask of one layer, 0 and 1, of the scores that are largest in size; its gradient is that of |scores|."""
    return _Subnet.apply(widen(scores), sparsity)  # type: ignore[return-value]


def protect(gradient: Tensor, taken: Tensor) -> Tensor:
    """The gradient of a weight, zero where an earlier task has chosen it."""
    return gradient.masked_fill(taken.bool(), 0)


class SubnetWeight(WeightView):
    """The weights that a task has chosen in one layer.

    In a state dict: `scores`, kept from task to task; `mask:TASK`, a bit a weight, of each finished task; and `last`,
    the mask of the last batch, where it was noted.
    """

    def __init__(self, shape: torch.Size):
        super().__init__(shape)
        self.active: str | None = None  # None: all weights
        self.sparsity = 0.5
        self._taken: Tensor | None = None

    @property
    def finished(self) -> list[str]:
        """Tasks with a mask."""
        return [name.removeprefix(MASK) for name in self._buffers if name.startswith(MASK)]

    def mask(self, task: str) -> Tensor:
        """The mask of a finished task, bool."""
        return self.unpacked(MASK + task)

    def taken(self) -> Tensor:
        """True where a finished task has chosen the weight."""
        if self._taken is None or self._taken.device != self._place.device:
            self._taken = torch.zeros(self.shape, dtype=torch.bool, device=self._place.device)
            for task in self.finished:
                self._taken |= self.mask(task)
        return self._taken

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the active task sees it; of the task being learnt, with gradients of weight and scores."""
        if self.active is None:
            return weight
        if MASK + self.active in self._buffers:
            return self.shown(weight)
        free: Tensor = _Protected.apply(weight, self.taken())  # type: ignore[assignment]
        return free * subnet(self.scores, sparsity=self.sparsity)  # type: ignore[arg-type]

    def note(self) -> None:
        """Keep the mask of the scores as they are now, for `finish`."""
        self.register_buffer(LAST, pack(chosen(self.scores, self.sparsity)))  # type: ignore[arg-type]

    def finish(self, task: str) -> None:
        """Make the mask of a task final: the noted one, or that of the scores."""
        if LAST not in self._buffers:
            self.note()
        self.register_buffer(MASK + task, self.buffer(LAST))
        delattr(self, LAST)
        self._taken = None

    def view_key(self) -> Key:
        """See `WeightView`."""
        packed = self.buffer(f"{MASK}{self.active}")
        return (self.active, packed._version, packed.data_ptr())

    def compose(self, weight: Tensor, out: Tensor | None) -> Tensor:
        """See `WeightView`."""
        return multiply(self.buffer(f"{MASK}{self.active}"), weight, (0, 1), out)

    def adopt(self, tensors: dict[str, Tensor]) -> None:
        """See `WeightView`."""
        make_room(self, {name: t for name, t in tensors.items() if name != SCORES}, self._place.device)
        self._taken = None

    def __getstate__(self) -> dict[str, Any]:
        """See `WeightView`."""
        return {**super().__getstate__(), "_taken": None}


def begin(network: nn.Module, task: str, *, sparsity: float, seed: int) -> None:
    """Let a task choose among all weights; scores of the first one are drawn, from the second on biases are fixed."""
    check_task(task)
    generator = torch.Generator().manual_seed(seed)
    later = False
    for _, weight, view in views(network, SubnetWeight):
        if SCORES not in view._parameters:
            drawn = nn.init.kaiming_uniform_(torch.empty(weight.shape), a=math.sqrt(5), generator=generator)
            view.register_parameter(SCORES, nn.Parameter(drawn.to(weight)))
        view.active, view.sparsity, later = task, sparsity, bool(view.finished)
    if later:
        fix_layers(network, SubnetWeight, weights=False)


def note(network: nn.Module) -> None:
    """Keep the masks of the scores as they are now, for `finish`."""
    for _, _, view in views(network, SubnetWeight):
        view.note()


def finish(network: nn.Module, task: str) -> None:
    """Keep one bit a weight of a task, unless it is finished."""
    for _, _, view in views(network, SubnetWeight):
        if task not in view.finished:
            view.finish(task)


def select(network: nn.Module, task: str | None) -> None:
    """Show the weights that a task has chosen, or all for None."""
    for _, weight, view in views(network, SubnetWeight):
        view.active = task
        if task in view.finished:
            view.shown(weight)


def masks(network: nn.Module, task: str) -> dict[str, Tensor]:
    """The masks of a finished task, bool, by the names of the weights."""
    return {name: view.mask(task) for name, _, view in views(network, SubnetWeight) if task in view.finished}


def trained(network: nn.Module) -> list[Tensor]:
    """Weights and scores, for an optimiser without weight decay."""
    return [tensor for _, weight, view in views(network, SubnetWeight) for tensor in (weight, view.scores)]  # type: ignore[misc]
