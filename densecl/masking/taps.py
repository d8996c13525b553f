"""TAPS: residuals on the layers that a task chooses (Wallingford et al., CVPR 2022, section 3)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from densecl.losses.reduction import widen
from densecl.masking.added import AddedWeight, Start
from densecl.masking.parametrized import views


class _Gate(Function):
    """weight + 1[score >= threshold] residual; the score's gradient is that of weight + score * residual."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, residual: Tensor, score: Tensor, threshold: float) -> Tensor:
        ctx.save_for_backward(residual, score)
        ctx.threshold = threshold
        return weight + (score >= threshold).to(residual.dtype) * residual

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        residual, score = ctx.saved_tensors
        chosen = (score >= ctx.threshold).to(grad.dtype)
        of_score = (grad * residual).sum().to(score.dtype) if ctx.needs_input_grad[2] else None
        return grad, chosen * grad, of_score, None


def effective(weight: Tensor, residual: Tensor, score: Tensor, *, threshold: float = 0.1) -> Tensor:
    """The weight of a layer, with the residual where its score, a scalar, is at least the threshold (eq. 2 and 3).

    Straight through: d score = sum(d result * residual), d residual = 1[score >= threshold] d result.
    """
    return _Gate.apply(widen(weight), widen(residual), widen(score), threshold)  # type: ignore[return-value]


def penalty(scores: Iterable[Tensor], *, weight: float = 1.0) -> Tensor:
    """Mean |score| of the layers, times a weight; 0 without layers."""
    values = [widen(score) for score in scores]
    return weight * torch.stack(values).abs().mean() if values else torch.zeros(())


class Residual(AddedWeight):
    """A residual of the weight's shape and the score that decides whether it counts; of a finished task, no score."""

    kinds = ("residual", "score")
    threshold = 0.1

    def combined(self, weight: Tensor, **tensors: Tensor) -> Tensor:
        """See `AddedWeight`."""
        if "score" in tensors:
            return effective(weight, tensors["residual"], tensors["score"], threshold=self.threshold)
        return weight + tensors["residual"]


def start(initial: float) -> Start:
    """The first values of a task: residuals of zero, scores that choose every layer or none."""
    return lambda weight: {"residual": torch.zeros_like(weight), "score": weight.new_tensor(initial)}


def finish(network: nn.Module, task: str) -> None:
    """Keep the residuals of the layers that a task has chosen, without scores; drop the others."""
    for _, _, view in views(network, Residual):
        if "score" in (tensors := view.of(task)):
            chosen = bool(tensors["score"] >= view.threshold)
            view.drop(task, ("score",) if chosen else ())
        for parameter in view.of(task).values():
            parameter.requires_grad_(False)


def scores(network: nn.Module, task: str) -> list[nn.Parameter]:
    """The scores of a task that is being learnt."""
    return [view.of(task)["score"] for _, _, view in views(network, Residual) if "score" in view.of(task)]
