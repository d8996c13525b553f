"""STAR (Chen, Cong, Luo, Ip, Kwong, NeurIPS 2023): prototypes replay the pixels that a step's images lack."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from densecl.losses import binary_cross_entropy, masked_feature_distillation, prototype_repulsion
from densecl.models.network import Output
from densecl.seeding import derive
from densecl.strategies.base import Weight
from densecl.strategies.tools.class_statistics import ClassStatistics
from densecl.strategies.tools.pixel_counts import background_ratio, fakes_per_iteration, pixel_counts, rebalance
from densecl.strategies.tools.prototypes import at_places, lengths, prototypes, spread
from densecl.strategies.tools.rows import require_rows
from densecl.strategies.tools.whole import as_share, mean_of_all, of_all
from densecl.strategies.tools.without_background import WithoutBackground, labels
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch

__all__ = [
    "STAR",
    "background_ratio",
    "fakes_per_iteration",
    "lengths",
    "pixel_counts",
    "prototypes",
    "rebalance",
    "spread",
]


class STAR(WithoutBackground):
    """Binary cross-entropy of new classes on pixels, on fake features of old classes, and on more background.

    No output stands for background: a pixel that every class denies has label 0.
    """

    whole_batches = True
    feature: Weight = 5.0  # of features where the teacher sees an old class (OCFM)
    repulsion: Weight = 0.05  # of new classes from prototypes of old ones (SAD)
    positive: Weight = 4.0  # of a class's own pixels; 30 on ADE20K
    absent: Literal["left out", "counted"] = "left out"  # in SAD: classes that a batch does not show
    form: Literal["exact", "published"] = "exact"  # published: logits above 0.5 are seen; see `remember` for spreads
    drift: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of old classes' change that prototypes follow (Adapter)

    def configure(self) -> None:
        """Begin without classes; refuse heads that do not take single features."""
        require_rows(self, "star")
        setting = "overlapped" if self.stream.setting == "overlapped" else "disjoint"
        self.kept = ClassStatistics(self.network.backbone.channels, self.device, setting)

    def before_step(self, experience: Experience) -> None:
        """Count what the teacher sees in the step's background."""
        if self.step > 0:
            self.kept.look_ahead(self, self._seen)

    def train_mode(self) -> None:
        """Choose the fakes of an iteration, besides."""
        super().train_mode()
        stored, predicted, iterations = self.kept.stored[1:], self.kept.predicted[1:], len(self.loop.batches)
        if self.step > 0:
            counts = fakes_per_iteration(stored, predicted, iterations=iterations, setting=self.kept.setting)
            self._rows = torch.arange(len(counts), device=self.device).repeat_interleave(counts)

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """The loss of pixels, of fakes and of further background, weighed by their numbers."""
        if teacher_output is None or self.network.n_outputs == self.n_old:
            return super().task_loss(output, batch, teacher_output)
        assert output.coarse is not None
        new = output.coarse[:, self.n_old - 1 :]  # (B, C_n, h, w)
        # places where nothing is: in a replayed image's background there may be a new class
        empty = (at_places(batch.target, new) == 0) & (at_places(self._seen(teacher_output), new) == 0)
        empty &= (batch.step == self.step).view(-1, 1, 1)
        background = binary_cross_entropy(new, torch.zeros_like(empty).long(), first=1, weight=empty.float())
        background, places, images = mean_of_all(background, empty.sum(), batch)
        everywhere = images * new[0, 0].numel()
        rng = torch.Generator(self.device).manual_seed(derive(self.seed, "fakes", self.step, self.iterations))
        drawn = self.kept.draw(self._rows, rng)  # the same in all processes
        z = self.network.heads.places[0][-1](drawn[:, :, None, None])
        fakes = binary_cross_entropy(z, self._rows.new_zeros(len(z), 1, 1), first=1)
        stored, predicted = self.kept.stored[0], self.kept.predicted[0]
        more = background_ratio(stored, predicted, n_new=new.shape[1], setting=self.kept.setting)
        weights = {"fake_weight": len(z) / everywhere, "background_weight": more.float() * places / everywhere}
        loss = rebalance(self.pixel_loss(output.logits, batch), fakes, background, **weights)
        return loss + sum(self.pixel_loss(logits, batch) for logits in output.auxiliary)

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """OCFM and SAD."""
        assert output.decoded is not None
        assert teacher_output.decoded is not None
        old = (batch.target == 0) & (self._seen(teacher_output) > 0)
        f, before, target, old = of_all(batch, output.decoded, teacher_output.decoded, batch.target, old.byte())
        new = range(self.n_old, self.network.n_outputs)
        apart = prototype_repulsion(f, target, self.kept.prototypes, classes=new, absent=self.absent)
        term = self.feature * masked_feature_distillation(f, before, old) + self.repulsion * apart
        return as_share(term, batch)

    def after_step(self, experience: Experience) -> None:
        """Let old classes follow the network, and measure the new ones."""
        if self.drift and self.step > 0:
            self.kept.follow(self, self.drift)
        self.kept.remember(self, experience, form=self.form)

    def state_dict(self) -> dict[str, Any]:
        """Statistics that are kept of classes."""
        return self.kept.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what is kept of classes."""
        self.kept.load_state_dict(state)

    def stored_bytes(self) -> int:
        """Bytes of what is kept of classes."""
        return self.kept.nbytes

    def _seen(self, output: Output) -> Tensor:
        """(B, H, W) classes that the teacher sees, 0 for none."""
        return labels(output.logits, cut=0.5 if self.form == "published" else 0.0)
