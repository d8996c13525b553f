"""DKD, decomposed knowledge distillation (Baek, Oh, Lee, Lee, Ham, NeurIPS 2022): a sigmoid for each class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densecl.losses import binary_cross_entropy, binary_distillation
from densecl.losses.reduction import widen
from densecl.models.heads import BuildHead, Heads, pointwise
from densecl.models.network import Output, upsample
from densecl.strategies.base import Weight
from densecl.strategies.tools.heads import ClassHeads, start_from
from densecl.strategies.tools.own_classes import own_classes_loss
from densecl.strategies.tools.rows import require_rows
from densecl.strategies.tools.without_background import WithoutBackground, labels
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch

__all__ = ["DKD", "decompose", "labels"]


class DKD(WithoutBackground):
    """Binary cross-entropy of new classes; distillation of old logits and of their positive and negative parts.

    No output stands for background: a pixel that every class denies has label 0.
    """

    needs = frozenset({"nonnegative"})  # else a part of a logit has both signs
    distillation: Weight = 5.0  # of logits
    decomposed: Weight = 5.0  # of the positive parts, and of the negative ones
    positive_first: Weight = 2.0  # of a class's own pixels at step 0; 35 on ADE20K
    positive: Weight = 1.0  # of them in later steps; 35 on ADE20K

    def configure(self) -> None:
        """Refuse heads whose weights cannot be decomposed."""
        require_rows(self, "dkd")

    def make_heads(self, channels: int, auxiliary_channels: tuple[int, ...]) -> Heads:
        """Heads of classes beside the head that says no, from which new ones start."""
        return DenyingHeads(channels, auxiliary_channels)

    def before_step(self, experience: Experience) -> None:
        """Start new classes from the head that says no."""
        if self.step > 0 and experience.new_classes:
            heads = self.network.heads
            start_from(heads.places[0][-1], heads.no)

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy, a mean over all pixels, of the classes that a sample's own step labels."""
        return own_classes_loss(self, logits, batch, positive=self.positive if self.step > 0 else self.positive_first)

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """The loss of classes, and of the head that says no, which does not reach the features."""
        assert output.decoded is not None
        no = upsample(self.network.heads.no(widen(output.decoded.detach())), output.logits)
        denied = binary_cross_entropy(no, torch.zeros_like(batch.target), first=1)
        return super().task_loss(output, batch, teacher_output) + denied

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Distillation of old logits at image size, and of their parts at the features' size."""
        assert output.decoded is not None
        assert teacher_output.decoded is not None
        before = self.teacher.heads.places[0]
        own = decompose(output.decoded, _rows(list(self.network.heads.places[0])[: len(before)]))
        wanted = decompose(teacher_output.decoded, _rows(before))
        parts = sum(binary_distillation(a, b) for a, b in zip(own, wanted, strict=True))
        return self.distillation * binary_distillation(output.logits, teacher_output.logits) + self.decomposed * parts


class DenyingHeads(ClassHeads):
    """Heads of classes; at the main place one more, `no`, that denies every class everywhere."""

    no: nn.Module

    def grow(self, outputs: int, build_head: BuildHead | None = None, device: torch.device | str | None = None) -> None:
        """Add a step's classes, and at the first step `no`."""
        first = not self.outputs
        super().grow(outputs, build_head, device)
        if first:
            self.no = (build_head or pointwise)(self.channels[0], 1).to(device)


def _rows(heads: Sequence[nn.Module]) -> Tensor:
    return torch.cat([head.get_parameter("weight") for head in heads])


def decompose(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative part of 1x1 logits without bias: sum_d max(w_d, 0) f_d, and sum_d min(w_d, 0) f_d.

    Args:
        features: (B, D, h, w), any floating type; computed in at least float32.
        weight: (K, D) or (K, D, 1, 1).
    """
    features, weight = widen(features), widen(weight)
    weight = weight.to(features.dtype).flatten(1)
    positive = weight.relu()
    with torch.autocast(features.device.type, enabled=False):
        parts = [torch.einsum("kd,bdhw->bkhw", part, features) for part in (positive, weight - positive)]
    return parts[0], parts[1]
