"""HAD: pseudo-labels by the network of the step before hold each earlier task (Zhang et al., CVPR 2026)."""

from typing import Literal

import torch
from torch import Tensor

from densecl.losses import cross_entropy
from densecl.losses.heterogeneous import Form, class_balanced, depth, edges, normals, segmentation
from densecl.losses.reduction import widen
from densecl.models.network import Output
from densecl.strategies.base import Strategy, Weight
from densecl.tasks import KINDS, Task
from densecl.training.batch import Batch

__all__ = ["HAD", "class_balanced", "depth", "edges", "normals", "segmentation"]


class HAD(Strategy):
    """Pseudo-labels of every earlier task, of which rare classes, both halves of depth, and edges count as much.

    Loss: the task's own + weight * the sum over earlier tasks of `segmentation`, `depth` or `normals`. All of the
    network is trained. Tasks of other kinds are held by their own `Task.distillation`.
    """

    kinds = frozenset(KINDS)
    streams = frozenset({"tasks"})
    first_step = "shared"
    weight: Weight = 3.0  # of the earlier tasks' losses
    bar: float = 0.5  # between near and far, in the unit of depth's outputs
    distance: Literal["had", "plain"] = "had"  # plain: the control, a mean over pixels of the task's own loss
    form: Form = "exact"  # of depth and normals

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """The sum over earlier tasks of their distance to the teacher."""
        terms = []
        for task in self.stream.tasks[: self.step]:
            teacher_logits = self.teacher.logits_of(task.name, teacher_output, batch.image).detach()
            terms.append(self.hold(task, self.network.logits_of(task.name, output, batch.image), teacher_logits))
        return self.weight * torch.stack(terms).sum()

    def hold(self, task: Task, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The distance of an earlier task's outputs to the teacher's."""
        if task.kind == "segmentation":
            labels = teacher_logits.argmax(1)
            if self.distance == "plain":
                return cross_entropy(logits, labels)
            return segmentation(widen(logits).log_softmax(1), labels)
        if self.distance == "plain" or task.kind not in ("depth", "normals"):
            return task.distillation(logits, teacher_logits)
        predictions = task.predicted(logits), task.predicted(teacher_logits)
        if task.kind == "depth":
            return depth(*predictions, bar=self.bar, form=self.form)
        return normals(*predictions, form=self.form)
