"""A network a task: the upper bound of scores and of storage."""

from torch import Tensor

from densecl.strategies.by_task import ByTask
from densecl.streams.stream import Step


class Scratch(ByTask):
    """Each task trains a network of its own, which starts as that of the first task did (random, or pretrained)."""

    _formula = "scratch"
    _initial: dict[str, Tensor] | None = None

    def grow(self, step: Step) -> None:
        """Restore the initial values of the network, from the second task on."""
        backbone = self.network.backbone
        if step.step == 0:
            self._initial = {name: tensor.detach().clone() for name, tensor in backbone.state_dict().items()}
            return
        assert self._initial is not None
        self.bank(["backbone"])
        backbone.load_state_dict(self._initial)

    def train_mode(self) -> None:
        """Training mode: nothing is shared."""
        self.network.train()
