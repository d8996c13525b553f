"""Try a kind of task on tiny images: shapes, loss, metrics, picture, void."""

import io
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from densecl.check.findings import Finding, added_to, described, trying
from densecl.check.tiny import TinyImages
from densecl.errors import SettingError
from densecl.optimizers import Adam
from densecl.settings.faults import first_fault
from densecl.settings.task_recipe import TaskSettings, complete
from densecl.tasks import Context, Picture, Prepared, Task
from densecl.training.batch import Batch, unkeyed

IMAGES, STEPS, RATE = 4, 40, 0.1  # of the descent on outputs
WRITTEN = ("prepare", "loss", "picture")


def check_task(cls: type[Task], values: Mapping[str, Any] | None = None) -> list[str]:
    """Find what is wrong with a kind of task under its settings, in words."""
    findings = [f"{cls.__name__} has no {name}: name it" for name in ("kind", "primary") if not hasattr(cls, name)]
    findings += [
        f"{cls.__name__}.{name} is not written" for name in WRITTEN if getattr(cls, name) is getattr(Task, name)
    ]
    if cls.metrics is Task.metrics and cls.scores is Task.scores:
        findings.append(f"{cls.__name__}.scores is not written, nor metrics")
    if findings:
        return findings
    try:
        settings = complete(cls, {"name": "tried", "kind": cls.kind, "data": "tiny", **(values or {})})
    except ValidationError as error:
        raise SettingError(first_fault(error, TaskSettings, cls.__name__)) from error
    except ValueError as error:
        raise SettingError(f"{cls.__name__}: {error}") from error
    with added_to(findings):
        with trying("build", cls):
            task = cls.build("tried", settings.values, Context(TinyImages.class_names))
            cls.build("tried", settings.values, Context(TinyImages.class_names, judge=False))
            json.dumps(task.settings)
        _try(task)
    return findings


def _try(task: Task) -> None:
    """Ask a task for all that a run asks of it; the first fault is raised."""
    reader = TinyImages(IMAGES, seed=1)
    image, mask = (torch.stack(parts) for parts in zip(*map(reader.read, range(IMAGES)), strict=True))
    if not task.needs_masks and task.truth is None:
        mask = torch.zeros_like(mask)
    if not isinstance(task.outputs, int) or task.outputs < 1:
        raise Finding(f"outputs is {task.outputs!r}; it must be the number of the head's channels")
    void = mask == 255
    if task.truth is not None:
        mask = _tiny_truth(task, mask, void)
    target = _prepared(task, image, mask)
    logits = torch.randn(IMAGES, task.outputs, *_size(task, image), generator=torch.Generator().manual_seed(0))
    _losses(task, logits, target)
    _scores(task, logits, image, target)
    if (task.needs_masks or task.truth is not None) and not task.image_level:
        _void(task, logits, image, target, void)
    _descent(task, logits, image, target)
    with trying("picture", type(task)):
        picture: Picture = task.picture(image[0], logits[0], mask[0])
    for part, shown in zip(Picture._fields, picture, strict=True):
        if shown.dtype != torch.uint8 or tuple(shown.shape) != tuple(image.shape[1:]):
            raise Finding(
                f"picture: {part} is {described(shown)}; it must be RGB, uint8 of shape {tuple(image.shape[1:])}"
            )
    with trying("state_dict", type(task)):
        file = io.BytesIO()
        torch.save(task.state_dict(), file)
        file.seek(0)
        task.load_state_dict(torch.load(file, weights_only=True))


def _size(task: Task, image: Tensor) -> tuple[int, ...]:
    """(height, width) of outputs and targets."""
    return (1, 1) if task.image_level else tuple(image.shape[2:])


def _tiny_truth(task: Task, mask: Tensor, void: Tensor) -> Tensor:
    """Depth of a mask's squares, or unit vectors, unknown where the mask is void; of other truths any numbers.

    Classes of whole images are 1, 2, ...
    """
    if task.truth == "class":
        return (1.0 + torch.arange(len(mask)).view(-1, 1, 1, 1) % len(task.class_names)).expand(-1, 1, *mask.shape[1:])
    if task.truth == "depth":
        return (1.0 + mask[:, None]).masked_fill(void[:, None], 0)
    channels = 3 if task.truth == "normals" else task.outputs
    assert channels is not None
    vectors = torch.randn(len(mask), channels, *mask.shape[1:], generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(vectors, dim=1).masked_fill(void[:, None], 0)


def _prepared(task: Task, image: Tensor, mask: Tensor) -> Tensor:
    """Make the target of a batch."""
    before = image.clone(), mask.clone()
    with trying("prepare", type(task)):
        prepared = Prepared(*task.prepare(image, mask))
    if not (torch.equal(image, before[0]) and torch.equal(mask, before[1])):
        raise Finding("prepare changed the image or the mask in place: change a copy")
    if prepared.image.shape != image.shape or not torch.isfinite(prepared.image.float()).all():
        raise Finding(
            f"prepare returned the image as {described(prepared.image)}; it must be finite, {tuple(image.shape)}"
        )
    labels = prepared.target.ndim == 3 and prepared.target.dtype == torch.int64
    values = prepared.target.ndim == 4 and prepared.target.dtype == torch.float32
    if not (labels or values) or prepared.target.shape[-2:] != _size(task, image) or len(prepared.target) != len(image):
        wanted = "(B, C, 1, 1)" if task.image_level else "(B, C, H, W), or int64 labels (B, H, W)"
        raise Finding(
            f"prepare returned the target as {described(prepared.target)}; it must be float32 values {wanted}"
        )
    return prepared.target


def _losses(task: Task, logits: Tensor, target: Tensor) -> None:
    """Check the loss and the distance to a teacher: one finite number each, with a gradient."""
    output = logits.clone().requires_grad_()
    with trying("update_critic", type(task)):
        task.update_critic(output, _batch(target))
    for name, other in (("loss", _batch(target)), ("distillation", logits.flip(0))):
        with trying(name, type(task)):
            value = getattr(task, name)(output, other)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise Finding(f"{name} returned {described(value)}; it must return a tensor with one number")
        if not value.requires_grad:
            raise Finding(f"{name} returned a tensor without gradient: is the output detached, or made into numbers?")
        (gradient,) = torch.autograd.grad(value, output)
        if not (torch.isfinite(value) and torch.isfinite(gradient).all() and gradient.any()):
            raise Finding(f"{name} is {value.item()}; it and its gradient must be finite, and the gradient not zero")
    with trying("loss of weighted samples", type(task)), torch.no_grad():
        weighted = task.loss(logits, _batch(target)._replace(weight=torch.tensor([1.0] * (IMAGES - 1) + [0.0])))
        without = task.loss(logits[:-1], _batch(target[:-1]))
    if not torch.allclose(weighted, without, rtol=1e-3):
        raise Finding("loss counts a sample whose weight is 0: divide the sum of w l by the sum of w (batch.weight)")


def _scores(task: Task, logits: Tensor, image: Tensor, target: Tensor) -> dict[str, Any]:
    """Score a batch; its parts together must have the same scores."""
    with trying("metrics", type(task)):
        whole, first, second = (task.metrics() for _ in range(3))
        for metrics, part in ((whole, slice(None)), (first, slice(1)), (second, slice(1, None))):
            metrics.update(logits[part].clone(), image[part], target[part])
        first.sums = first.sums + second.sums
        scores = whole.compute()
        json.dumps(scores)
        score, together = task.score(scores), task.score(first.compute())
    if not math.isfinite(score):
        raise Finding(f"metrics: {task.primary} is {score}; a task is ranked by it, so it must be finite")
    if not math.isclose(score, together, rel_tol=1e-4):
        raise Finding("metrics: the scores of two processes' images together are not those of all: see Metrics.sums")
    return scores


def _void(task: Task, logits: Tensor, image: Tensor, target: Tensor, void: Tensor) -> None:
    """Check that outputs at void pixels count nowhere."""
    other = torch.where(void[:, None], -3 * logits.flip(0), logits)
    with torch.no_grad():
        if not torch.allclose(task.loss(other, _batch(target)), task.loss(logits, _batch(target))):
            raise Finding("loss depends on outputs at void pixels, where the mask is 255: leave them out")
    if _scores(task, other, image, target) != _scores(task, logits, image, target):
        raise Finding("metrics depend on outputs at void pixels, where the mask is 255: leave them out")


def _descent(task: Task, logits: Tensor, image: Tensor, target: Tensor) -> None:
    """Check that the primary metric gets better where the loss falls."""
    output = logits.clone().requires_grad_()
    optimizer = Adam([output], lr=RATE)
    before = task.score(_scores(task, logits, image, target))
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = task.loss(output, _batch(target))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    after = task.score(_scores(task, output.detach(), image, target))
    if losses[-1] < losses[0] and (after - before if task.higher_is_better else before - after) <= 0:
        raise Finding(
            f"{task.primary} went from {before:.4g} to {after:.4g} while the loss fell, and higher_is_better is "
            f"{task.higher_is_better}: does the loss fit the metric?"
        )


def _batch(target: Tensor) -> Batch:
    """A batch of which losses read the targets alone."""
    return unkeyed(target, target)
