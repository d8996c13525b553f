"""Modeling the Background."""

from typing import Literal

import torch
from torch import Tensor

from densecl.losses import exemplar_cross_entropy, unbiased_cross_entropy, unbiased_distillation
from densecl.models.network import Output
from densecl.strategies.base import Strategy, Weight
from densecl.strategies.tools.own_classes import own_classes
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch, weighted


class MiB(Strategy):
    """Unbiased cross-entropy and distillation (Cermelli et al., CVPR 2020, eq. 5-10)."""

    first_step = "shared"
    distillation: Weight = 10.0  # weight of eq. 8

    def configure(self) -> None:
        """Let nothing hide in the background of replayed samples, unless a plugin says otherwise."""
        self.hides: Literal["nothing", "unlabelled", "new"] = "nothing"

    def before_step(self, experience: Experience) -> None:
        """Start new outputs as shares of the background's (eq. 10), on the main and the auxiliary heads."""
        if self.step > 0:
            self.network.heads.init_from_background()

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy in which background may be any class that a sample's own step does not label (eq. 5-6)."""
        # nothing is hidden where old classes stay labelled (sequential), nor where none is new (another domain)
        labelled = self.stream.setting == "sequential" or self.network.n_outputs == self.n_old
        n_old = 0 if labelled else self.n_old
        if self.hides == "nothing" or not n_old:
            hidden = batch.step == self.step
            return unbiased_cross_entropy(logits, batch.target, n_old=n_old, hidden=hidden, weight=batch.weight)
        weight = weighted((batch.target != 255).to(logits.dtype), batch)  # (B, H, W)
        whole = weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
        loss = logits.new_zeros(())
        for step in batch.step.unique().tolist():  # one mean over all of them
            own = batch.step == step
            classes = own_classes(self, step)
            first, end = classes.start + 1, classes.stop + 1
            if self.hides == "new" and step < self.step:
                first, end = 1, n_old
            term = exemplar_cross_entropy(logits[own], batch.target[own], first=first, n_old=end, weight=weight[own])
            loss = loss + term * weight[own].sum() / whole
        return loss

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Distillation in which the teacher's background may be a new class (eq. 8-9)."""
        return self.distillation * unbiased_distillation(output.logits, teacher_output.logits)
