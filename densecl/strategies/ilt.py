"""Incremental Learning Techniques for semantic segmentation."""

from typing import Literal

from torch import Tensor

from densecl.losses import distillation, feature_distillation
from densecl.models.network import Output
from densecl.strategies.base import Strategy, Weight
from densecl.training.batch import Batch


class ILT(Strategy):
    """Distillation of outputs and of features (Michieli and Zanuttigh, ICCV Workshops 2019)."""

    first_step = "shared"
    weight: Weight = 100.0  # of the output distillation
    features: Weight = 100.0  # of the mean squared error between the features
    place: Literal["encoder", "decoder"] = "encoder"  # whose last map they are; Di Salvo et al. took BiSeNet's fusion

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Output distillation and feature distillation."""
        outputs = distillation(output.logits, teacher_output.logits)
        own, wanted = (o.encoded[-1] if self.place == "encoder" else o.decoded for o in (output, teacher_output))
        assert own is not None
        assert wanted is not None
        return self.weight * outputs + self.features * feature_distillation(own, wanted)
