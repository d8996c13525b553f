"""Piggyback: one mask a task on the weights of a fixed network (Mallya et al., ECCV 2018, section 3).

add_masks(network)                          # once; every convolution and linear layer outside the heads
begin(network, "voc", MaskSettings())       # real-valued scores for a task; weights and biases are fixed
...                                         # train score_parameters(network) and the head
finish(network, "voc")                      # scores are dropped, one bit a weight stays
select(network, "voc")                      # or None: the network without masks
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from densecl.errors import SettingError, UnknownNameError
from densecl.masking.bits import bits_in, multiply, pack
from densecl.masking.parametrized import HEADS, Key, WeightView, add_views, check_task, fix_layers, make_room, views

SCORES, CUTS, SCALE, MASK = "scores:", "cuts:", "scale:", "mask:"  # then the task: names in a state dict
SIGNS = (0, 1, 0, -1)  # of the numbers that masks are stored as


@dataclass(frozen=True)
class MaskSettings:
    """The way masks are learnt; the defaults are the paper's.

    Raises:
        SettingError: values that make no mask, by key and value.
    """

    masks: Literal["binary", "ternary"] = "binary"  # {0, 1}, or {-1, 0, 1} with two cut-offs
    # Scores at the start. constant: `initial` everywhere, so that nothing is masked. proportional: scores and threshold
    # of a layer are multiplied by its mean |W| over that of all masked layers, so that nothing is masked and gradient
    # over score is alike in all layers (section 3, approach 1; our reading). random: uniform, as many of each value
    init: Literal["constant", "proportional", "random"] = "constant"
    initial: float = 1e-2
    threshold: float = 5e-3  # a weight counts where its score is at least this (eq. 4)
    negative: float | None = None  # of ternary masks: -1 where a score is at most this; None: -threshold
    scale_gradients: bool = False  # divided by a layer's mean |W|, for SGD (section 3, approach 2)

    def __post_init__(self) -> None:
        if self.masks not in ("binary", "ternary"):
            raise SettingError(f"masks='{self.masks}' does not exist", "use binary or ternary")
        if self.init not in ("constant", "proportional", "random"):
            raise SettingError(f"init='{self.init}' does not exist", "use constant, proportional or random")
        if not 0 < self.threshold <= self.initial:
            raise SettingError(
                f"threshold={self.threshold} with initial={self.initial}: all weights would start masked",
                "use 0 < threshold <= initial",
            )
        if self.negative is not None and not (self.masks == "ternary" and self.negative < self.threshold):
            raise SettingError(
                f"negative={self.negative} with masks={self.masks}, threshold={self.threshold} makes no mask",
                "it is the lower cut-off of ternary masks, below threshold",
            )

    @property
    def cuts(self) -> list[float]:
        """The upper cut-off and, for ternary masks, the lower one."""
        lower = -self.threshold if self.negative is None else self.negative
        return [self.threshold, lower][: 1 if self.masks == "binary" else 2]


class StraightThrough(Function):
    """W * 1[scores >= threshold] whose gradient passes the threshold as if it were not there (eq. 4-7).

    The scores get dE/dm = dE/dW_eff * W (unclipped), times `scale`; W, where it is trained, gets dE/dW_eff * m.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, cuts: Tensor, scale: Tensor | None) -> Tensor:
        """The masked weight."""
        ctx.save_for_backward(weight, *((scores, cuts) if weight.requires_grad else ()))
        ctx.scale = scale
        return apply_scores(scores, weight, cuts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        """Gradients of scores and weight."""
        weight, *others = ctx.saved_tensors
        grad_scores = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_scores = grad * weight
            if ctx.scale is not None:
                grad_scores *= ctx.scale
        if ctx.needs_input_grad[1]:
            scores, cuts = others
            grad_weight = apply_scores(scores, grad, cuts)
        return grad_scores, grad_weight, None, None


def apply_scores(scores: Tensor, weight: Tensor, cuts: Tensor) -> Tensor:
    """The weight times its mask: 1 where the score is at least `cuts[0]`, and -1 where it is at most `cuts[1]`.

    Binary masks have one cut-off, ternary ones two.
    """
    signs = torch.ge(scores, cuts[0], out=torch.empty_like(weight))  # times them: `where` branches, and is far slower
    if len(cuts) > 1:
        signs -= (scores <= cuts[1]).to(signs.dtype)
    return signs.mul_(weight)


def harden(scores: Tensor, cuts: Tensor) -> Tensor:
    """The mask in its stored form: bool, or for ternary ones uint8 0, 1 and 3 for 0, 1 and -1."""
    ones = scores >= cuts[0]
    return ones if len(cuts) == 1 else ones.to(torch.uint8) | (scores <= cuts[1]).to(torch.uint8) * 3


class MaskedWeight(WeightView):
    """The masks of one layer, by task.

    In a state dict a task being learnt is `scores:TASK` (float), `cuts:TASK` and, where gradients are scaled,
    `scale:TASK`; a finished one is `mask:TASK`, packed: 1 bit a weight, 2 for ternary masks. Loading takes over the
    tasks that the state dict has, whatever was there before. Under a finished mask the weight gets no gradient.
    """

    def __init__(self, shape: torch.Size):
        super().__init__(shape)
        self.active: str | None = None  # the task whose mask is applied

    @property
    def finished(self) -> list[str]:
        """Tasks with a packed mask."""
        return [name.removeprefix(MASK) for name in self._buffers if name.startswith(MASK)]

    @property
    def learning(self) -> list[str]:
        """Tasks with scores."""
        return [name.removeprefix(SCORES) for name in self._parameters if name.startswith(SCORES)]

    def begin(self, task: str, scores: Tensor, cuts: Tensor, scale: Tensor | None) -> None:
        """Start a task with these scores; an earlier attempt is dropped."""
        self.drop(task)
        self.register_parameter(SCORES + task, nn.Parameter(scores))
        self.register_buffer(CUTS + task, cuts)
        if scale is not None:
            self.register_buffer(SCALE + task, scale)
        self.active = task

    def put(self, task: str, mask: Tensor) -> None:
        """Keep a mask as `harden` makes it, and drop the task's scores."""
        packed = pack(mask, 1 if mask.dtype == torch.bool else 2)
        self.drop(task)
        self.register_buffer(MASK + task, packed)

    def drop(self, task: str) -> None:
        """Forget a task."""
        for prefix in (SCORES, CUTS, SCALE, MASK):
            if prefix + task in self._parameters or prefix + task in self._buffers:
                delattr(self, prefix + task)

    def mask(self, task: str) -> Tensor:
        """The mask of a task, finished or not, in the weight's shape and as `harden` makes it."""
        if task in self.finished:
            return self.unpacked(MASK + task)
        scores: Tensor = getattr(self, SCORES + task)
        return harden(scores.detach(), self.buffer(CUTS + task))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the active task sees it."""
        if self.active is None:
            return weight
        scores = self._parameters.get(SCORES + self.active)
        if scores is None:
            return self.shown(weight)
        return StraightThrough.apply(  # type: ignore[return-value]
            scores, weight, self._buffers[CUTS + self.active], self._buffers.get(SCALE + self.active)
        )

    def view_key(self) -> Key:
        """See `WeightView`."""
        packed = self.buffer(f"{MASK}{self.active}")
        return (self.active, packed._version, packed.data_ptr())

    def compose(self, weight: Tensor, out: Tensor | None) -> Tensor:
        """See `WeightView`."""
        packed = self.buffer(f"{MASK}{self.active}")
        return multiply(packed, weight, SIGNS[: 1 << bits_in(packed, self.shape.numel())], out)

    def adopt(self, tensors: dict[str, Tensor]) -> None:
        """See `WeightView`."""
        scores = {name: value for name, value in tensors.items() if name.startswith(SCORES)}
        for name in [name for name in self._parameters if name not in scores]:
            delattr(self, name)
        for name, value in scores.items():
            if name not in self._parameters:
                self.register_parameter(name, nn.Parameter(torch.empty_like(value, device=self._place.device)))
        make_room(self, {name: value for name, value in tensors.items() if name not in scores}, self._place.device)
        if self.active not in (*self.finished, *self.learning):
            self.active = None


def add_masks(network: nn.Module, skip: Collection[str] = HEADS) -> None:
    """Make the weights outside `skip` maskable; the network works as before until a task begins."""
    add_views(network, MaskedWeight, skip, "mask")


def begin(network: nn.Module, task: str, settings: MaskSettings, seed: int = 0) -> None:
    """Give every maskable weight scores for a task, make it active and fix weights and biases."""
    check_task(task)
    layers = list(views(network, MaskedWeight))
    means = [weight.detach().abs().mean() for _, weight, _ in layers]
    counts = [weight.numel() for _, weight, _ in layers]
    overall = sum(float(m) * n for m, n in zip(means, counts, strict=True)) / sum(counts)
    generator = torch.Generator().manual_seed(seed)
    for (_, weight, view), mean in zip(layers, means, strict=True):
        factor = float(mean) / overall if settings.init == "proportional" and overall else 1.0
        cuts = weight.new_tensor([cut * factor for cut in settings.cuts])
        if settings.init == "random":  # as many scores on each side of a cut-off
            upper, lower = (cut * factor for cut in (*settings.cuts, 0.0)[:2])
            low, high = (0.0, 2 * upper) if settings.masks == "binary" else (2 * lower - upper, 2 * upper - lower)
            scores = torch.empty(weight.shape).uniform_(low, high, generator=generator).to(weight)
        else:
            scores = torch.full_like(weight.detach(), settings.initial * factor)
        scale = None
        if settings.scale_gradients:
            scale = torch.where(mean > 0, 1 / mean, torch.ones_like(mean))
        view.begin(task, scores, cuts, scale)
    fix_layers(network, MaskedWeight)


def finish(network: nn.Module, task: str) -> None:
    """Keep one bit a weight of a task that was learnt (two for ternary masks), drop its scores."""
    for view in _views_of(network, task):
        if task in view.learning:
            view.put(task, view.mask(task))


def select(network: nn.Module, task: str | None) -> None:
    """Apply a task's masks, or none for None; masked weights are computed here, once."""
    if task is not None:
        _views_of(network, task)
    for _, weight, view in views(network, MaskedWeight):
        view.active = task
        if task in view.finished:
            view.shown(weight)


def tasks(network: nn.Module) -> list[str]:
    """Tasks that have masks, finished or being learnt."""
    view = next((view for _, _, view in views(network, MaskedWeight)), None)
    return [] if view is None else [*view.finished, *view.learning]


def score_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The scores being learnt, for an optimiser without weight decay."""
    return [p for _, _, view in views(network, MaskedWeight) for p in view.parameters()]


def masks(network: nn.Module, task: str) -> dict[str, Tensor]:
    """The masks of a task by the names of the weights, as `harden` makes them."""
    _views_of(network, task)
    return {name: view.mask(task) for name, _, view in views(network, MaskedWeight)}


def _views_of(network: nn.Module, task: str) -> list[MaskedWeight]:
    """The views of a task; UnknownNameError if it was never begun."""
    if task not in tasks(network):
        raise UnknownNameError("task", task, tasks(network), "its masks were never learnt")
    return [view for _, _, view in views(network, MaskedWeight)]
