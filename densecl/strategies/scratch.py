"""A network a task: the upper bound of what a backbone learns alone, and of what is stored."""

from torch import Tensor

from densecl.strategies.by_task import ByTask
from densecl.strategies.storage import formula_bytes
from densecl.streams.stream import Step


class Scratch(ByTask):
    """Each task trains a network of its own, which starts as that of the first task did (random, or pretrained)."""

    _initial: dict[str, Tensor] | None = None

    def grow(self, step: Step) -> None:
        """From the second task on the network's initial values once more."""
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

    def model_bytes(self) -> int:
        """By formula."""
        return formula_bytes(self.network, "scratch", self.learnt)
