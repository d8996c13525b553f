"""Normalisation and a head for each task on the fixed network of the first one: the control of all that adds more."""

from collections.abc import Collection
from typing import ClassVar, Literal

from torch import Tensor

from densecl.errors import SettingError
from densecl.masking import added
from densecl.masking.added import AddedWeight
from densecl.strategies.by_task import ByTask
from densecl.streams.stream import Step


class Norms(ByTask):
    """From the second task on train scale, shift and statistics of normalisation, and the head; nothing else.

    The base of methods that add something to the fixed weights.
    """

    _formula = "norms"
    start: Literal["first", "previous"] = "first"  # whose normalisation a task's own starts from

    def configure(self) -> None:
        """Refuse a backbone whose normalisation has nothing to train."""
        if type(self) is Norms and not self.backbone_norms():
            raise SettingError(
                f"norms: {type(self.network.backbone).__name__} has no normalisation with parameters or statistics",
                "use one with BatchNorm, such as unet(norm=batch), or the strategy classifier",
            )

    def grow(self, step: Step) -> None:
        """Give each task from the second on its normalisation and what `add` makes; train these and the head."""
        if step.step > 0:
            start = self.names[0] if self.start == "first" and step.step > 1 else None
            self.bank(self.backbone_norms(), start=start)
            self.freeze(self.add(step))

    def add(self, step: Step) -> Collection[Tensor]:
        """Make what else the task has of its own, and return the parameters of it."""
        return ()


class Added(Norms):
    """The base of methods whose tasks add a tensor to each weight, in views of one kind."""

    kind: ClassVar[type[AddedWeight]] = AddedWeight

    def leave(self, task: str) -> None:
        """Train no longer what the task adds."""
        added.finish(self.network, self.kind, task)

    def show(self, index: int) -> None:
        """Add what a task has; the first one has nothing."""
        added.select(self.network, self.kind, self.names[index] if index else None)
