"""Watch the hooks of a method, so that `check` names a wrong value where it arises."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from densecl.check.findings import Finding, described
from densecl.metrics.confusion import INTEGERS
from densecl.models.network import Network, Output
from densecl.strategies.base import Plugin, Strategy
from densecl.training.batch import Batch
from densecl.training.loop import Loop


def watch(loop: Loop) -> None:
    """Wrap the hooks of a strategy and of its plugins: a value they must not return raises `Finding`."""
    strategy = loop.strategy

    def look_at_loss(name: str, value: Any, *_arguments: Any, **_keywords: Any) -> None:
        if value is not None or not name.endswith(".loss"):  # a plugin may have none
            _look_at_loss(name, value, strategy.step)

    for name in ("pixel_loss", "task_loss", *(["regulariser"] if strategy.overrides("regulariser") else [])):
        _wrap(strategy, name, functools.partial(look_at_loss, name))
    _wrap(strategy, "prepare_batch", _look_at_batch)
    _wrap(strategy, "predict", functools.partial(_look_at_labels, strategy.network))
    _wrap(strategy, "build_head", _look_at_head)
    _wrap(strategy, "param_groups", _look_at_groups)
    for owner in (strategy, *loop.plugins):
        prefix = f"{owner.name or type(owner).__name__}." if isinstance(owner, Plugin) else ""
        for hook in ("before_step", "after_step"):
            _keep_heads(strategy, owner, hook, prefix + hook)
        if prefix:
            _wrap(owner, "loss", functools.partial(look_at_loss, f"{prefix}loss"))


def _look_at_loss(name: str, value: Any, step: int) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise Finding(
            f"{name} returned {described(value)}; it must return a tensor with one number, the mean over pixels"
        )
    if not torch.isfinite(value).all():
        raise Finding(f"{name} is {value.item()} at step {step}: the loss must stay finite")
    if name == "task_loss" and not value.requires_grad:
        raise Finding("task_loss returned a tensor without gradient: is the output detached, or made into numbers?")


def _look_at_batch(value: Any, batch: Batch, *_arguments: Any) -> None:
    if not isinstance(value, Batch):
        raise Finding(f"prepare_batch returned {described(value)}; it must return a Batch")
    if value.target.shape[0] != batch.target.shape[0] or value.target.dtype != batch.target.dtype:
        raise Finding("prepare_batch changed the number or the type of the targets")


def _look_at_labels(network: Network, value: Any, output: Output) -> None:
    wanted = (output.logits.shape[0], *output.logits.shape[2:])
    if not isinstance(value, Tensor) or tuple(value.shape) != wanted:
        raise Finding(f"predict returned {described(value)}; it must return labels of shape (B, H, W) = {wanted}")
    if value.dtype not in INTEGERS:
        raise Finding(f"predict returned numbers of type {value.dtype}; labels are integers")
    outputs, low, high = network.n_outputs, int(value.min()), int(value.max())
    if low < 0 or high >= outputs:
        wrong = low if low < 0 else high
        raise Finding(f"predict returned the label {wrong}; the network has outputs 0 to {outputs - 1}")


def _look_at_head(head: Any, channels: int, outputs: int) -> None:
    if not isinstance(head, nn.Module):
        raise Finding(f"build_head returned {described(head)}; it must return a torch.nn.Module")
    with torch.no_grad():
        logits = copy.deepcopy(head).eval()(torch.zeros(2, channels, 4, 4))  # its BatchNorm would remember the zeros
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, outputs, 4, 4):
        raise Finding(
            f"build_head({channels}, {outputs}) makes a head that turns (2, {channels}, 4, 4) into "
            f"{described(logits)}; it must give {outputs} outputs: (2, {outputs}, 4, 4)"
        )


def _look_at_groups(groups: Any) -> None:
    if not isinstance(groups, list) or not all(isinstance(group, dict) and "params" in group for group in groups):
        raise Finding("param_groups must return a list of dictionaries with 'params'")


def _wrap(owner: Strategy | Plugin, name: str, look: Callable[..., object]) -> None:
    """Call `look(value, *arguments)` after each call of a hook, which must leave the batch's targets as they are."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def watched(*arguments: Any, **keywords: Any) -> Any:
        batch = next((a for a in (*arguments, *keywords.values()) if isinstance(a, Batch)), None)
        target = None if batch is None else batch.target.clone()
        value = function(*arguments, **keywords)
        if batch is not None and target is not None and not torch.equal(batch.target, target):
            raise Finding(f"{name} changed batch.target in place: change a copy, batch.target.clone()")
        look(value, *arguments, **keywords)
        return value

    setattr(owner, name, watched)


def _keep_heads(strategy: Strategy, owner: Strategy | Plugin, name: str, shown: str) -> None:
    """Let a hook change the values of head parameters, but not their sizes."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def watched(*arguments: Any, **keywords: Any) -> Any:
        before = {key: tuple(p.shape) for key, p in strategy.network.heads.named_parameters()}
        value = function(*arguments, **keywords)
        after = {key: tuple(p.shape) for key, p in strategy.network.heads.named_parameters()}
        changed = next((key for key, shape in before.items() if after.get(key) != shape), None)
        if changed is not None:
            now = f"changed its size to {after[changed]}" if changed in after else "is gone"
            raise Finding(
                f"{shown} at step {strategy.step}: the old head parameter {changed} of size {before[changed]} {now}; "
                "old outputs must stay as they are, new ones are added by build_head"
            )
        return value

    setattr(owner, name, watched)
