"""What SSUL and BARM share: sigmoid outputs of deep heads, on BatchNorm that later steps leave as it is."""

from typing import Annotated, Any

from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.models.network import ConvNormReLU
from densecl.strategies.base import Strategy
from densecl.streams.scenario import Experience
from densecl.training.schedule import keep_above


class DeepSigmoid(Strategy):
    """A head is a 3x3 convolution with BatchNorm and ReLU, and what makes outputs.

    After step 0 all BatchNorm is as in evaluation, and its scale and shift are fixed; dropout stays on.
    """

    sigmoid = True
    least_rate: Annotated[float, Field(ge=0)] = 1e-6  # no rate falls below it

    def build_head(self, channels: int, outputs: int) -> nn.Module:
        """The backbone's head: of both parts already (`deeplabv3(head=3x3)`), or the second one."""
        own = super().build_head(channels, outputs)
        if isinstance(own, nn.Sequential) and isinstance(own[0], ConvNormReLU):
            return own
        first = ConvNormReLU(channels, channels)
        nn.init.kaiming_normal_(first.get_parameter("0.weight"))
        return nn.Sequential(first, own)

    def before_step(self, experience: Experience) -> None:
        """Fix scale and shift of BatchNorm after step 0."""
        for norm in self._fixed():
            norm.requires_grad_(False)

    def train_mode(self) -> None:
        """Have BatchNorm normalise as in evaluation after step 0, while the rest trains."""
        super().train_mode()
        for norm in self._fixed():
            norm.eval()

    def param_groups(self) -> list[dict[str, Any]]:
        """Groups whose rates do not fall below the least."""
        groups = super().param_groups()
        keep_above(groups, self.settings, self.step, self.least_rate)
        return groups

    def _fixed(self) -> list[nn.Module]:
        return [m for m in self.network.modules() if isinstance(m, _BatchNorm)] if self.step > 0 else []
