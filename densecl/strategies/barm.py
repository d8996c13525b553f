"""BARM (Zhang, Gao, ECCV 2024): each later head corrects the first one's background."""

from collections.abc import Iterator, Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from densecl.losses import binary_cross_entropy, binary_distillation
from densecl.losses.corrections import correction_losses, masked_distance, nearest_labels
from densecl.losses.reduction import widen
from densecl.models.heads import Heads
from densecl.models.network import Output
from densecl.strategies.base import Weight
from densecl.strategies.tools.deep_sigmoid import DeepSigmoid
from densecl.strategies.tools.heads import ChannelHeads
from densecl.strategies.tools.pseudo_labels import fill_in
from densecl.strategies.tools.whole import as_share, of_all
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch

__all__ = ["BARM", "correction_losses", "masked_distance", "unify"]


class BARM(DeepSigmoid):
    """Binary cross-entropy of a background that all heads make, and distillation of each head and of its features.

    A head is an "ear" (3x3 convolution, BatchNorm, ReLU) and outputs: background or its correction, and classes.
    """

    whole_batches = True
    triplet: Weight = 5.0  # background adaptation: corrections below 0 on background
    positive: Weight = 1.0  # background adaptation: corrections above 0 on new classes
    feature: Weight = 4.0  # background feature distillation: of each old ear on background
    distillation: Weight = 1.0  # group knowledge distillation: of each old head's outputs
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.7  # probability from which the teacher's class is believed
    least_rate: Annotated[float, Field(ge=0)] = 1e-6  # no rate falls below it

    def make_heads(self, channels: int, auxiliary_channels: tuple[int, ...]) -> Heads:
        """Heads with a correction each."""
        return CorrectingHeads(channels, auxiliary_channels)

    def before_step(self, experience: Experience) -> None:
        """Start the new ear as the first one, but for running statistics; fix scale and shift of BatchNorm."""
        super().before_step(experience)
        for place in self.network.heads.places if self.step > 0 and experience.new_classes else ():
            first, newest = (cast(nn.Sequential, place[k])[0] for k in (0, -1))
            with torch.no_grad():
                for name, value in newest.named_parameters():
                    value.copy_(first.get_parameter(name))

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of background and classes, summed, a mean over labelled pixels."""
        return binary_cross_entropy(logits, batch.target, weight=batch.weight)

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """Pseudo-background cross-entropy: the teacher, whose logits are probabilities, labels background."""
        if teacher_output is not None:
            target = fill_in(batch.target, teacher_output.logits, first=1, threshold=self.threshold)
            batch = batch._replace(target=target)
        return super().task_loss(output, batch, teacher_output)

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Losses of the newest correction, and distillation of old ears and heads."""
        assert output.decoded is not None
        assert teacher_output.decoded is not None
        own = list(self.network.heads.ears(output.decoded))
        before = list(self.teacher.heads.ears(teacher_output.decoded))
        loss = output.logits.new_zeros(())
        for (ear, maps), (old_ear, old_maps) in zip(own, before, strict=False):
            loss = loss + self.feature * masked_distance(ear, old_ear, batch.target)
            loss = loss + self.distillation * binary_distillation(maps, old_maps)
        if len(own) == len(before):  # no class came
            return loss
        correction = own[-1][1][:, 0]
        old = (batch.target > 0) & (batch.target < self.n_old)  # of replayed samples
        target = nearest_labels(torch.where(old, 255, batch.target), correction)
        triplet, positive = correction_losses(*of_all(batch, correction, target))
        return loss + as_share(self.triplet * triplet + self.positive * positive, batch)

    def class_probabilities(self, logits: Tensor) -> Tensor:
        """Those of classes, without background: what an evaluated network gives."""
        return logits[:, 1:]


class CorrectingHeads(ChannelHeads):
    """Heads with one output more after the first; they give logits in training, in evaluation probabilities."""

    def channels_of(self, outputs: int, first: bool) -> Sequence[int]:
        """The first head's labels hold background; a later one has a correction of it besides."""
        return (outputs + (not first),)

    def forward(self, decoded: Tensor, auxiliary: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """(B, labels, h, w) of one background and all classes at each place."""
        parts = zip(self._places(), (decoded, *auxiliary), strict=False)
        maps = [unify([head(x) for head in place], training=self.training) for place, x in parts]
        return tuple(x if self.training else widen(x).sigmoid() for x in maps)

    def ears(self, decoded: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each head at the main place its ear's features (B, D, h, w) and its outputs (B, 1 + C_t, h, w)."""
        for head in self._places()[0]:
            ear, last = cast(nn.Sequential, head)
            yield (features := ear(decoded)), last(features)


def unify(heads: Sequence[Tensor], *, training: bool) -> Tensor:
    """Background and classes (B, 1 + sum C_t, h, w) from the maps of each head (B, 1 + C_t, h, w).

    Background is b_0 + sum_t min(b_t, 0) of the first channels. In training all but the newest head are constants, and
    its correction counts above 0 too, so it learns from there.
    """
    first, *later = heads
    if not later:
        return first
    *old, newest = later
    fixed = [head.detach() if training else head for head in (first, *old)]
    background = fixed[0][:, :1] + sum(head[:, :1].clamp(max=0) for head in fixed[1:])
    background = background + (newest[:, :1] if training else newest[:, :1].clamp(max=0))
    return torch.cat([background, *(head[:, 1:] for head in (*fixed, newest))], 1)
