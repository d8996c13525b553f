"""Learning without Forgetting, for segmentation."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from densecl.losses import distillation
from densecl.models.network import Output
from densecl.strategies.base import Strategy, Weight
from densecl.tasks import KINDS
from densecl.training.batch import Batch


class LwF(Strategy):
    """Output distillation on the old classes (Li and Hoiem, ECCV 2016), in the form of Cermelli et al., CVPR 2020.

    On a sequence of tasks the head of every earlier task is held to its output before the step on the same images, each
    by its own kind's distance (`Task.distillation`), averaged over those tasks.
    """

    kinds = frozenset(KINDS)
    streams = frozenset({"classes", "tasks"})
    first_step = "shared"
    weight: Weight = 100.0  # of the distillation, which averages over classes and pixels
    temperature: Annotated[float, Field(gt=0)] = 1.0

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Cross-entropy between the teacher's and the network's distribution over the old outputs; or by task."""
        if not self.stream.by_task:
            return self.weight * distillation(output.logits, teacher_output.logits, temperature=self.temperature)
        terms = []
        for task in self.stream.tasks[: self.step]:
            teacher_logits = self.teacher.logits_of(task.name, teacher_output, batch.image).detach()
            terms.append(task.distillation(self.network.logits_of(task.name, output, batch.image), teacher_logits))
        return self.weight * torch.stack(terms).mean()
