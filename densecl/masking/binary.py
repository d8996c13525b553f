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
from densecl.masking.bits import bits_in, multiply, pack, unpack
from densecl.masking.parametrized import (
    HEADS,
    Key,
    WeightView,
    check_task,
    fix_layers,
    make_room,
    maskable,
    register,
    views,
)

SCORES, CUTS, SCALE, MASK = "scores:", "cuts:", "scale:", "mask:"  # then the task: names in a state dict
SIGNS = (0, 1, 0, -1)  # of the numbers that masks are stored as


@dataclass(frozen=True)
class MaskSettings:
    """How masks are learnt; the defaults are the paper's.

    Attributes:
        masks: "binary" {0, 1}, or "ternary" {-1, 0, 1} with the cut-offs +threshold and -threshold.
        init: scores at the start. "constant": `initial` everywhere, so that nothing is masked. "proportional":
            scores and threshold of a layer are multiplied by its mean |W| over that of all masked layers, so that
            nothing is masked and gradient over score is alike in all layers (section 3, approach 1; our reading).
            "random": uniform, with as many 0 as 1 (ternary: as many of each).
        initial: score at the start, 1e-2.
        threshold: a weight counts where its score is at least this (eq. 4), 5e-3.
        scale_gradients: divide the gradient of a layer's scores by its mean |W|, for SGD (section 3, approach 2).
    """

    masks: Literal["binary", "ternary"] = "binary"
    init: Literal["constant", "proportional", "random"] = "constant"
    initial: float = 1e-2
    threshold: float = 5e-3
    scale_gradients: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no mask.

        Raises:
            SettingError: naming key and value.
        """
        if self.masks not in ("binary", "ternary"):
            raise SettingError(f"masks='{self.masks}' does not exist", "use binary or ternary")
        if self.init not in ("constant", "proportional", "random"):
            raise SettingError(f"init='{self.init}' does not exist", "use constant, proportional or random")
        if not 0 < self.threshold <= self.initial:
            raise SettingError(
                f"threshold={self.threshold} with initial={self.initial}: all weights would start masked",
                "use 0 < threshold <= initial",
            )


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
    """The weight where its score is at least the cut-off; with a second one, minus it where the score is at most that.

    Args:
        scores: real-valued.
        weight: of the same shape.
        cuts: (1,) binary: threshold; (2,) ternary: threshold and -threshold.
    """
    signs = torch.ge(scores, cuts[0], out=torch.empty_like(weight))  # times them: `where` branches, and is far slower
    if len(cuts) > 1:
        signs -= (scores <= cuts[1]).to(signs.dtype)
    return signs.mul_(weight)


def harden(scores: Tensor, cuts: Tensor) -> Tensor:
    """The mask as it is stored: bool, or uint8 for ternary ones: 0, 1 and 3 for 0, 1 and -1."""
    ones = scores >= cuts[0]
    return ones if len(cuts) == 1 else ones.to(torch.uint8) | (scores <= cuts[1]).to(torch.uint8) * 3


class MaskedWeight(WeightView):
    """The masks of one layer, by task, and which of them is active.

    In a state dict a task being learnt is `scores:TASK` (float), `cuts:TASK` and, where gradients are scaled,
    `scale:TASK`; a finished one is `mask:TASK`, packed: 1 bit a weight, 2 for ternary masks. Loading takes over the
    tasks that the state dict has, whatever was there before. Under a finished mask the weight gets no gradient.

    Attributes:
        active: task whose mask is applied, None for none.
    """

    def __init__(self, shape: torch.Size):
        super().__init__(shape)
        self.active: str | None = None

    @property
    def finished(self) -> list[str]:
        """Tasks with a packed mask."""
        return [name.removeprefix(MASK) for name in self._buffers if name.startswith(MASK)]

    @property
    def learning(self) -> list[str]:
        """Tasks with scores."""
        return [name.removeprefix(SCORES) for name in self._parameters if name.startswith(SCORES)]

    def begin(self, task: str, scores: Tensor, cuts: Tensor, scale: Tensor | None) -> None:
        """Start a task with these scores; what it had before is dropped."""
        self.drop(task)
        self.register_parameter(SCORES + task, nn.Parameter(scores))
        self.register_buffer(CUTS + task, cuts)
        if scale is not None:
            self.register_buffer(SCALE + task, scale)
        self.active = task

    def finish(self, task: str) -> None:
        """Keep the bits of a task, drop its scores."""
        self.put(task, self.mask(task))

    def put(self, task: str, mask: Tensor) -> None:
        """Keep a mask as `harden` makes it."""
        packed = pack(mask, 1 if mask.dtype == torch.bool else 2)
        self.drop(task)
        self.register_buffer(MASK + task, packed)

    def drop(self, task: str) -> None:
        """Forget a task."""
        for prefix in (SCORES, CUTS, SCALE, MASK):
            if prefix + task in self._parameters or prefix + task in self._buffers:
                delattr(self, prefix + task)

    def mask(self, task: str) -> Tensor:
        """The mask of a task, finished or not, of the weight's shape: bool, or uint8 as `harden` has ternary ones."""
        packed = self._buffers.get(MASK + task)
        if packed is not None:
            return unpack(packed, self.shape, bits_in(packed, self.shape.numel()))
        scores, cuts = self._parameters[SCORES + task], self._buffers[CUTS + task]
        assert scores is not None
        assert cuts is not None
        return harden(scores.detach(), cuts)

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
        assert self.active is not None
        packed = self._buffers[MASK + self.active]
        assert packed is not None
        return (self.active, packed._version, packed.data_ptr())

    def compose(self, weight: Tensor, out: Tensor | None) -> Tensor:
        """See `WeightView`."""
        packed = self._buffers[f"{MASK}{self.active}"]
        assert packed is not None
        bits = bits_in(packed, self.shape.numel())
        return multiply(packed, weight, SIGNS[: 1 << bits], out)

    def adopt(self, found: dict[str, Tensor]) -> None:
        """See `WeightView`."""
        for name in [name for name in self._parameters if name not in found]:
            delattr(self, name)
        for name, value in found.items():
            if name.startswith(SCORES) and name not in self._parameters:
                scores = torch.empty(self.shape, dtype=value.dtype, device=self._place.device)
                self.register_parameter(name, nn.Parameter(scores))
        make_room(self, {name: t for name, t in found.items() if not name.startswith(SCORES)}, self._place.device)
        if self.active not in (*self.finished, *self.learning):
            self.active = None


def add_masks(network: nn.Module, skip: Collection[str] = HEADS) -> None:
    """Make the weights of a network maskable; it goes on as before until a task begins.

    Args:
        network: any.
        skip: dotted names of layers that are never masked: the last layer, and what is trained from scratch.

    Raises:
        SettingError: nothing is left to mask.
    """
    layers = maskable(network, skip)
    if not layers:
        raise SettingError(f"{type(network).__name__} has no layer to mask besides {', '.join(skip)}")
    for module in layers.values():
        register(module, MaskedWeight(module.weight.shape))  # type: ignore[union-attr,arg-type]


def begin(network: nn.Module, task: str, settings: MaskSettings, seed: int = 0) -> None:
    """Give every maskable weight scores for a task, make it active and fix weights and biases.

    Args:
        network: with `add_masks` done.
        task: its name, without dots; an earlier attempt of the same name is dropped.
        settings: see `MaskSettings`.
        seed: of random scores.

    Raises:
        SettingError: a name that cannot be one.
    """
    check_task(task)
    layers = list(views(network, MaskedWeight))
    means = [weight.detach().abs().mean() for _, weight, _ in layers]
    counts = [weight.numel() for _, weight, _ in layers]
    overall = sum(float(m) * n for m, n in zip(means, counts, strict=True)) / sum(counts)
    generator = torch.Generator().manual_seed(seed)
    for (_, weight, view), mean in zip(layers, means, strict=True):
        factor = float(mean) / overall if settings.init == "proportional" and overall else 1.0
        cut = settings.threshold * factor
        cuts = weight.new_tensor([cut, -cut][: 1 if settings.masks == "binary" else 2])
        if settings.init == "random":
            low, high = (0.0, 2 * cut) if settings.masks == "binary" else (-3 * cut, 3 * cut)
            scores = torch.empty(weight.shape).uniform_(low, high, generator=generator).to(weight)
        else:
            scores = torch.full_like(weight.detach(), settings.initial * factor)
        scale = None
        if settings.scale_gradients:
            scale = torch.where(mean > 0, 1 / mean, torch.ones_like(mean))
        view.begin(task, scores, cuts, scale)
    fix_layers(network, MaskedWeight)


def finish(network: nn.Module, task: str) -> None:
    """Keep one bit a weight of a task that was learnt (two for ternary masks), drop its scores.

    Raises:
        UnknownNameError: the task was never begun.
    """
    for view in _known(network, task):
        if task in view.learning:
            view.finish(task)


def select(network: nn.Module, task: str | None) -> None:
    """Let the network be that of a task, or without masks for None; masked weights are computed here, once.

    Raises:
        UnknownNameError: the task was never learnt.
    """
    if task is not None:
        _known(network, task)
    for _, weight, view in views(network, MaskedWeight):
        view.active = task
        if task in view.finished:
            view.shown(weight)


def tasks(network: nn.Module) -> list[str]:
    """Tasks that have masks, finished or being learnt."""
    view = next((view for _, _, view in views(network, MaskedWeight)), None)
    return [] if view is None else [*view.finished, *view.learning]


def score_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The scores being learnt, to be given to an optimiser without weight decay."""
    return [p for _, _, view in views(network, MaskedWeight) for p in view.parameters()]


def masks(network: nn.Module, task: str) -> dict[str, Tensor]:
    """The masks of a task by the weights' names before masking: bool, or uint8 0, 1, 3 for ternary 0, 1, -1.

    Raises:
        UnknownNameError: the task was never learnt.
    """
    _known(network, task)
    return {name: view.mask(task) for name, _, view in views(network, MaskedWeight)}


def put_masks(network: nn.Module, task: str, values: dict[str, Tensor]) -> None:
    """Give a task its masks, as `masks` returns them; names and shapes must be those of the network.

    Raises:
        SettingError: a name that cannot be one. KeyError: masks for some weights are missing.
    """
    check_task(task)
    for name, _, view in views(network, MaskedWeight):
        view.put(task, values[name].to(view._place.device).view(view.shape))


def _known(network: nn.Module, task: str) -> list[MaskedWeight]:
    if task not in tasks(network):
        raise UnknownNameError("task", task, tasks(network), "its masks were never learnt")
    return [view for _, _, view in views(network, MaskedWeight)]
