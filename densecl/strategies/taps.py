"""TAPS: a task adds residuals to the layers that it chooses (Wallingford et al., CVPR 2022)."""

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from densecl.masking import added, taps
from densecl.masking.parametrized import HEADS, add_views
from densecl.masking.taps import Residual
from densecl.models.network import Output
from densecl.strategies.base import Weight
from densecl.strategies.norms import Added
from densecl.strategies.storage import formula_bytes
from densecl.streams.stream import Step
from densecl.training.batch import Batch

PUBLISHED = 52  # layers that the released code divides by, whatever the network has


class TAPS(Added):
    """Task-adaptive parameter sharing: w + 1[score >= threshold] * residual in each layer, both trained.

    A penalty on the scores of the layers lets a task change few of them; the residuals of the others are not kept.
    Normalisation and the head are each task's own. The first task trains the network as fine-tuning does.
    """

    uses_teacher: ClassVar[bool] = False
    kind = Residual
    _formula = "taps"
    weight: Weight = 1.0  # of the mean |score| of the layers
    threshold: Annotated[float, Field(gt=0)] = 0.1  # a layer is chosen where its score is at least this
    initial: Annotated[float, Field(ge=0)] = 0.15  # score at the start
    from_epoch: Annotated[int, Field(ge=0)] = 3  # epochs before the penalty counts
    form: Literal["exact", "published"] = "exact"  # the mean, or the sum over 52, which is right for a ResNet-50

    def add(self, step: Step) -> Collection[Tensor]:
        """Give the task a residual and a score at every layer."""
        if step.step == 1:
            add_views(self.network, Residual, HEADS, "adapt")
        added.begin(self.network, Residual, step.task.name, taps.start(self.initial), threshold=self.threshold)
        return added.parameters(self.network, Residual, step.task.name)

    def param_groups(self) -> list[dict[str, Any]]:
        """All that the task trains; scores, which the penalty draws to zero, without weight decay."""
        [group] = super().param_groups()
        scores = self._scores()
        apart = {id(score) for score in scores}
        others = [parameter for parameter in group["params"] if id(parameter) not in apart]
        return [{**group, "params": others}, *([{"params": scores, "weight_decay": 0.0}] if scores else [])]

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """The task's loss and the penalty."""
        loss, scores = super().task_loss(output, batch, teacher_output), self._scores()
        if not scores or self.epoch < self.from_epoch:
            return loss
        layers = 1.0 if self.form == "exact" else len(scores) / PUBLISHED
        return loss + taps.penalty(scores, weight=self.weight * layers)

    def leave(self, task: str) -> None:
        """Keep the residuals of the chosen layers."""
        taps.finish(self.network, task)

    def model_bytes(self) -> int:
        """Bytes by formula: the weights of the layers that each task has chosen."""
        numbers = sum(p.numel() for task in self.learnt[1:] for p in added.parameters(self.network, Residual, task))
        return formula_bytes(self.network, self._formula, self.learnt, norms=self.banked, added=numbers)

    def _scores(self) -> list[Any]:
        return taps.scores(self.network, self.names[self.step]) if self.step else []
