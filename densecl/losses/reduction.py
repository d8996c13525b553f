"""Parts of several losses: precision, weights of pixels, blocks of pixels that fit the cache, analytic gradients."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 21  # 8 MiB of float32: large enough to hide call overhead, small enough for a CPU's last cache
JOINED_ELEMENTS = 1 << 19  # samples are joined up to here: more hides no more overhead, and takes memory

Block = tuple[slice, slice, slice]
Normalise = Literal["weight", "pixels"]


def widen(x: Tensor) -> Tensor:
    """Half precision to float32 (differentiable); float32 and float64 unchanged.

    The losses call it themselves, so they are right under autocast: a gradient of a mean over 10^5 pixels is below
    what float16 can hold until a loss scaler has multiplied it.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def pair(first: Tensor, constant: Tensor, name: str, other: str) -> tuple[Tensor, Tensor]:
    """Two maps of one shape in at least float32, the second without gradient; the names are for the ValueError."""
    if first.shape != constant.shape:
        raise ValueError(f"{name} {tuple(first.shape)} and {other} {tuple(constant.shape)} differ in shape")
    first = widen(first)
    return first, constant.detach().to(first.dtype)


def pixel_weights(weight: Tensor | None, valid: Tensor, dtype: torch.dtype, normalise: Normalise = "weight") -> Tensor:
    """Factors (B, H, W) of the pixels' losses in their mean; all zero when no pixel counts.

    Args:
        weight: None (all 1), (B,) per sample or (B, H, W) per pixel; taken as a constant, never differentiated.
        valid: (B, H, W) bool, pixels that count.
        dtype: floating type of the result.
        normalise: what weight * valid is divided by: "weight", its sum; "pixels", B H W.
    """
    if normalise not in ("weight", "pixels"):
        raise ValueError(f"normalise is '{normalise}', not 'weight' or 'pixels'")
    w = valid.to(dtype)
    if weight is not None:
        if weight.shape not in (valid.shape[:1], valid.shape):
            raise ValueError(f"weight has shape {tuple(weight.shape)}, not (B,) or (B, H, W) of {tuple(valid.shape)}")
        w = w * weight.detach().to(dtype).reshape(*weight.shape, *[1] * (valid.dim() - weight.dim()))
    if normalise == "pixels":
        return w / max(1, valid.numel())
    total = w.sum()
    return w / torch.where(total == 0, torch.ones_like(total), total)


def blocks(logits: Tensor, elements: int | None = None) -> Iterator[Block]:
    """Cut (B, C, H, W) into index triples (batch, class, row) whose pixels are worked on together.

    On a CPU a block is a part of a sample or a few small samples, so that the several passes of a loss over it stay in
    the cache; elsewhere one block holds everything, since each pass is a kernel launch. A part of a sample has at most
    so many `elements`, BLOCK_ELEMENTS if None.
    """
    batch, classes, height, width = logits.shape
    if logits.device.type != "cpu":
        yield slice(None), slice(None), slice(None)
        return
    rows = max(1, (elements or BLOCK_ELEMENTS) // max(1, classes * width))
    samples = max(1, JOINED_ELEMENTS // max(1, classes * height * width))
    for first in range(0, batch, samples):
        for top in range(0, height, rows):
            yield slice(first, first + samples), slice(None), slice(top, top + rows)


def with_gradient(loss: Callable[..., Tensor], logits: Tensor, *constants: Tensor) -> Tensor:
    """The value of `loss(logits, *constants, gradient)`, which fills `gradient` unless it is None.

    If a gradient will be needed, the loss makes it beside the value, while a block is in the cache.
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        return _WithGradient.apply(loss, logits, *constants)  # pyright: ignore[reportReturnType]
    return loss(logits, *constants, None)


class _WithGradient(torch.autograd.Function):
    """The buffer with the gradient is handed over in backward, and made anew for a second one."""

    @staticmethod
    def forward(ctx: Any, loss: Callable[..., Tensor], logits: Tensor, *constants: Tensor) -> Tensor:
        ctx.save_for_backward(logits, *constants)
        ctx.loss, ctx.gradient = loss, torch.empty_like(logits)
        return loss(logits, *constants, ctx.gradient)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the analytic gradient of a loss has no second derivative: create_graph=True cannot be")
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            logits, *constants = ctx.saved_tensors
            gradient = torch.empty_like(logits)
            ctx.loss(logits, *constants, gradient)
        factor = grad_outputs[0]
        if factor.device.type != "cpu" or factor.item() != 1:  # on a CPU a factor of 1 saves a pass over memory
            gradient.mul_(factor)
        return None, gradient, *[None] * (len(ctx.needs_input_grad) - 2)
