"""Modeling the Background."""

import torch
from torch import Tensor

from densecl.losses import exemplar_cross_entropy, unbiased_cross_entropy, unbiased_distillation
from densecl.models.network import Output
from densecl.strategies.base import Strategy, Weight
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch


class MiB(Strategy):
    """Unbiased cross-entropy and distillation (Cermelli et al., CVPR 2020, eq. 5-10)."""

    first_step = "shared"
    distillation: Weight = 10.0  # weight of eq. 8

    def configure(self) -> None:
        """Treat replayed samples as fully labelled, unless a plugin asks for another loss of them."""
        self.augmented = False  # True: the background of a replayed sample may be a new class

    def before_step(self, experience: Experience) -> None:
        """Start new outputs as shares of the background's (eq. 10), on the main and the auxiliary heads."""
        if self.step > 0:
            self.network.heads.init_from_background()

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy in which background may be an old class (eq. 5-6), in samples with this step's labels."""
        hidden = batch.step == self.step
        # nothing is hidden where old classes stay labelled (sequential), nor where none is new (another domain)
        labelled = self.stream.setting == "sequential" or self.network.n_outputs == self.n_old
        n_old = 0 if labelled else self.n_old
        if not (self.augmented and n_old):
            return unbiased_cross_entropy(logits, batch.target, n_old=n_old, hidden=hidden, weight=batch.weight)
        weight = (batch.target != 255).to(logits.dtype)  # (B, H, W)
        if batch.weight is not None:
            weight = weight * batch.weight.view(*batch.weight.shape, *[1] * (3 - batch.weight.ndim))
        own, replayed = weight * hidden.view(-1, 1, 1), weight * ~hidden.view(-1, 1, 1)
        share = own.sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)  # one mean over both
        term = unbiased_cross_entropy(logits, batch.target, n_old=n_old, weight=own)
        return share * term + (1 - share) * exemplar_cross_entropy(logits, batch.target, n_old=n_old, weight=replayed)

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Distillation in which the teacher's background may be a new class (eq. 8-9)."""
        return self.distillation * unbiased_distillation(output.logits, teacher_output.logits)
