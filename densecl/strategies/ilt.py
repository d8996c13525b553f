"""Incremental Learning Techniques for semantic segmentation."""

from torch import Tensor

from densecl.losses import distillation, feature_distillation
from densecl.models.network import Output
from densecl.strategies.base import Strategy
from densecl.training.batch import Batch


class ILT(Strategy):
    """Distillation of outputs and of the encoder's last features (Michieli and Zanuttigh, ICCV Workshops 2019)."""

    first_step = "shared"
    weight: float = 100.0  # of the output distillation
    features: float = 100.0  # of the mean squared error between the encoders' last maps

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Output distillation and feature distillation."""
        outputs = distillation(output.logits, teacher_output.logits)
        encoded = feature_distillation(output.encoded[-1], teacher_output.encoded[-1])
        return self.weight * outputs + self.features * encoded
