"""Learning without Forgetting, for segmentation."""

from torch import Tensor

from densecl.losses import distillation
from densecl.models.network import Output
from densecl.strategies.base import Strategy
from densecl.training.batch import Batch


class LwF(Strategy):
    """Output distillation on the old classes (Li and Hoiem, ECCV 2016), in the form of Cermelli et al., CVPR 2020."""

    first_step = "shared"
    weight: float = 100.0  # of the distillation, which averages over classes and pixels
    temperature: float = 1.0

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Cross-entropy between the teacher's and the network's distribution over the old outputs."""
        return self.weight * distillation(output.logits, teacher_output.logits, temperature=self.temperature)
