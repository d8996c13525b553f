"""Parallel adapters: a task adds a 1x1 convolution beside each 3x3 convolution of the first task's network."""

from collections.abc import Collection

from torch import Tensor

from densecl.errors import SettingError
from densecl.masking import added
from densecl.masking.added import Pointwise, is_3x3
from densecl.masking.parametrized import HEADS, add_views, maskable
from densecl.strategies.norms import Added
from densecl.strategies.storage import formula_bytes
from densecl.streams.stream import Step


class Adapter(Added):
    """Parallel residual adapters (Rebuffi, Bilen, Vedaldi, CVPR 2018), which start at zero.

    A 1x1 convolution of the same stride, added to a 3x3 one, is a change of the centre of its kernel: that is how it is
    computed. Normalisation and the head are each task's own.
    """

    kind = Pointwise
    _formula = "adapter"

    def configure(self) -> None:
        """Refuse a network without 3x3 convolutions."""
        if not self._layers(True):
            name = type(self.network.backbone).__name__
            raise SettingError(f"adapter: {name} has no 3x3 convolution", "use a convolutional backbone such as unet")

    def add(self, step: Step) -> Collection[Tensor]:
        """Give the task a 1x1 kernel beside every 3x3 one."""
        if step.step == 1:
            add_views(self.network, Pointwise, (*HEADS, *self._layers(False)), "adapt")
        added.begin(self.network, Pointwise, step.task.name, added.point_start)
        return added.parameters(self.network, Pointwise, step.task.name)

    def model_bytes(self) -> int:
        """Bytes by formula: a ninth of the weights of 3x3 convolutions, for each task from the second on."""
        numbers = sum(self.network.get_submodule(name).weight.numel() // 9 for name in self._layers(True))  # type: ignore[operator, union-attr]
        return formula_bytes(self.network, self._formula, self.learnt, norms=self.banked, added=self.step * numbers)

    def _layers(self, with_adapter: bool) -> list[str]:
        """Dotted names of the layers that have an adapter, or of those that have none."""
        return [name for name, layer in maskable(self.network).items() if is_3x3(layer) == with_adapter]
