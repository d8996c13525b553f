"""SSUL (Cha, Kim, Yoo, Moon, NeurIPS 2021): an output for what is unknown, and a body that stays after step 0."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from densecl.losses import binary_cross_entropy
from densecl.losses.reduction import widen
from densecl.models.heads import Heads
from densecl.models.network import Output
from densecl.strategies.tools.deep_sigmoid import DeepSigmoid
from densecl.strategies.tools.heads import ChannelHeads, start_from
from densecl.strategies.tools.pseudo_labels import fill_in
from densecl.strategies.tools.rows import require_copies
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch
from densecl.training.schedule import keep_above


class SSUL(DeepSigmoid):
    """Binary cross-entropy of the outputs unknown, background and each class; after step 0 new heads alone learn.

    Background is unknown where the images' `saliency` is above 0, or everywhere without such maps (as on ADE20K).
    """

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.7  # probability from which the teacher's class is believed
    background_scale: Annotated[float, Field(gt=0)] = 1e-4  # of the rate, for the background's head after step 0
    least_rate: Annotated[float, Field(ge=0)] = 1e-6  # no rate falls below it

    def configure(self) -> None:
        """Refuse heads of which new classes cannot be copies."""
        require_copies(self, "ssul")

    def make_heads(self, channels: int, auxiliary_channels: tuple[int, ...]) -> Heads:
        """Heads of what is unknown, of background, and of each step's classes."""
        return UnknownHeads(channels, auxiliary_channels)

    def before_step(self, experience: Experience) -> None:
        """Start new classes from what is unknown; fix the body, old classes and all of BatchNorm."""
        super().before_step(experience)
        if self.step == 0:
            return
        self.network.backbone.requires_grad_(False)
        for unknown, _, *classes in self.network.heads.places:
            old = classes[:-1] if experience.new_classes else classes
            for head in old:
                head.requires_grad_(False)
            if experience.new_classes:
                start_from(classes[-1], unknown)

    def param_groups(self) -> list[dict[str, Any]]:
        """A group of its own for the background's heads after step 0."""
        groups = super().param_groups()
        if self.step > 0:
            background = {id(p): p for place in self.network.heads.places for p in place[1].parameters()}
            for group in groups:
                group["params"] = [p for p in group["params"] if id(p) not in background]
            free = [p for p in background.values() if p.requires_grad]
            groups.append({"params": free, "lr_scale": self.background_scale})
            keep_above(groups[-1:], self.settings, self.step, self.least_rate)
        return [group for group in groups if group["params"]]

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of all outputs, a mean over labelled pixels; background is unknown or background."""
        return binary_cross_entropy(logits, self._shifted(batch), weight=batch.weight)

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """The loss with labels that the teacher gives to background."""
        target = self._shifted(batch)
        if teacher_output is not None:
            target = pseudo_labels(target, teacher_output.logits, threshold=self.threshold)
        maps = (output.logits, *output.auxiliary)
        return torch.stack([binary_cross_entropy(z, target, weight=batch.weight) for z in maps]).sum()

    def predict(self, output: Output) -> Tensor:
        """The most probable label, where what is unknown is background."""
        return labels(output.logits)

    def class_probabilities(self, logits: Tensor) -> Tensor:
        """Those of classes, without unknown and background."""
        return logits[:, 2:].sigmoid()

    def _shifted(self, batch: Batch) -> Tensor:
        saliency = batch.extra.get("saliency")
        return shift_labels(batch.target, unknown=None if saliency is None else saliency > 0)


class UnknownHeads(ChannelHeads):
    """Heads of what is unknown and of background, then one of classes for each step."""

    def channels_of(self, outputs: int, first: bool) -> Sequence[int]:
        """Three modules at the first step, of which the third has the classes."""
        return (1, 1, outputs - 1) if first else (outputs,)


def shift_labels(target: Tensor, *, unknown: Tensor | None = None, ignore_index: int = 255) -> Tensor:
    """Labels of the outputs unknown, background, class 1, ...: those of `target` and one; void stays.

    Background (0) is unknown (0) where `unknown` (B, H, W) is true, or everywhere without it; else it is 1.
    """
    background = torch.zeros_like(target) if unknown is None else (~unknown).to(target.dtype)
    return torch.where(target == ignore_index, target, torch.where(target == 0, background, target + 1))


def pseudo_labels(target: Tensor, teacher_logits: Tensor, *, threshold: float = 0.7) -> Tensor:
    """Shifted labels in which the teacher's class stands for unknown or background where it has that probability."""
    return fill_in(target, teacher_logits.sigmoid(), first=2, threshold=threshold)


def labels(logits: Tensor) -> Tensor:
    """(B, H, W) labels of logits (B, 2 + classes, H, W); what is unknown and background count together as label 0."""
    p = widen(logits).sigmoid()
    return torch.cat([p[:, :1] + p[:, 1:2], p[:, 2:]], 1).argmax(1)
