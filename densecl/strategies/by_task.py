"""What strategies that are told the task have in common: parts and masks that a change of task exchanges."""

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from densecl.masking import parts
from densecl.masking.normalisation import fix_norm, norm_layers
from densecl.masking.parametrized import is_below
from densecl.strategies.base import Strategy
from densecl.streams.experiences import Experience
from densecl.streams.stream import Step
from densecl.tasks import KINDS


class ByTask(Strategy):
    """The base of strategies that keep every earlier task as it was, and must be told which one is asked for.

    On a class-incremental stream each step is a task: background and the step's classes (`densecl.streams.told`).

    Structure (banks, masks) is made in `grow`, which is replayed on resume and holds nothing that was learnt; all that
    was learnt is in the network's state dict. Task 0 trains the network as fine-tuning does, unless a method says
    otherwise.
    """

    kinds: ClassVar[frozenset[str]] = frozenset(KINDS)
    streams: ClassVar[frozenset[str]] = frozenset({"tasks", "classes"})
    oracle: ClassVar[Literal["task"] | None] = "task"
    first_step: ClassVar[Literal["own", "shared"]] = "shared"

    # ---- for methods

    def grow(self, step: Step) -> None:
        """Make the structure of a step whose task has just got its head."""

    def leave(self, task: str) -> None:
        """Make what a task learnt final; its parts have been kept already."""

    def show(self, index: int) -> None:
        """Activate a task's masks."""

    # ---- hooks

    @property
    def names(self) -> list[str]:
        """Tasks by step."""
        return [task.name for task in self.stream.tasks]

    @property
    def banked(self) -> tuple[str, ...]:
        """Dotted names of the parts in the bank."""
        bank = getattr(self.network, parts.NAME, None)
        return () if bank is None else bank.modules_of

    def build(self, step: Step) -> None:
        """Conclude the task before where that has not been done (a resumed run replays structure alone), then grow."""
        if step.step > 0 and self._open:
            self._finish(self.names[step.step - 1])
        self._open = True
        self.grow(step)

    def after_step(self, experience: Experience) -> None:
        """Keep the task."""
        self._finish(experience.task.name)

    def _finish(self, task: str) -> None:
        if self.banked and parts.parts(self.network).learning == task:
            parts.finish(self.network, task)
        self.leave(task)
        self._open = False

    def select_task(self, index: int) -> None:
        """Head, parts and masks of a task."""
        super().select_task(index)
        if self.banked:
            parts.select(self.network, self.names[index])
        self.show(index)

    def train_mode(self) -> None:
        """Training mode, but for normalisation that tasks share."""
        super().train_mode()
        if self.step > 0:
            self.fix_shared()

    def state_dict(self) -> dict[str, Any]:
        """Whether the task of the step is still being learnt."""
        return {"open": self._open}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the network holds the task of the step."""
        self._open = state["open"]
        if self.banked:
            bank = parts.parts(self.network)
            bank.active = self.names[self.step]
            bank.learning = bank.active if self._open else None

    def model_tensors(self) -> dict[str, Tensor]:
        """Without the values of parts that the bank has as well."""
        bank = f"{parts.NAME}."
        return {
            name: tensor
            for name, tensor in self.network.state_dict().items()
            if name.startswith(bank) or not is_below(name, self.banked)
        }

    _open = False

    # ---- tools

    def fix_shared(self) -> None:
        """Normalisation that tasks share works with what the first one learnt."""
        fix_norm(self.network, (*self.banked, "heads"))

    def backbone_norms(self) -> list[str]:
        """Dotted names of the backbone's normalisation layers that have parameters or statistics."""
        return [name for name in norm_layers(self.network) if name.startswith("backbone.")]

    def bank(self, modules: Sequence[str], *, start: str | None = None) -> None:
        """Give tasks these parts of their own: the ones before keep theirs, the task of the step begins with a copy.

        Args:
            modules: dotted names; nothing happens when there are none.
            start: the task whose values it begins with; None: what the network has.
        """
        if not modules:
            return
        if not self.banked:
            bank = parts.add_parts(self.network, modules)
            for name in self.names[: self.step]:  # one, but for banks that are made late
                bank.store(self.network, name)
        parts.begin(self.network, self.names[self.step], start=start)

    def freeze(self, besides: Collection[Tensor] = ()) -> None:
        """Train nothing of the backbone but the banked parts and some parameters; earlier tasks' heads neither."""
        free = {id(parameter) for parameter in besides}
        head = self.network.task_heads.of(self.names[self.step])
        free |= {id(parameter) for parameter in head.parameters()}
        for name, parameter in self.network.named_parameters():
            trained = id(parameter) in free or is_below(name, self.banked)
            parameter.requires_grad_(trained)
