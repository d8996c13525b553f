"""The base of strategies that are told the task: parts and masks that a change of task exchanges."""

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from densecl.masking import parts
from densecl.masking.parametrized import is_below
from densecl.strategies.base import Strategy
from densecl.strategies.storage import formula_bytes
from densecl.streams.scenario import Experience
from densecl.streams.stream import Step
from densecl.tasks import KINDS


class ByTask(Strategy):
    """Keeps every earlier task as it was, and must be told which one is asked for.

    On a class-incremental stream each step is a task: background and the step's classes. `grow` makes structure (banks,
    masks) and is replayed on resume; all that was learnt is in the network's state dict. Task 0 trains the network as
    fine-tuning does, unless a method says otherwise.
    """

    kinds: ClassVar[frozenset[str]] = frozenset(KINDS)
    streams: ClassVar[frozenset[str]] = frozenset({"tasks", "classes"})
    oracle: ClassVar[Literal["task"] | None] = "task"
    first_step: ClassVar[Literal["own", "shared"]] = "shared"
    _formula: ClassVar[str] = "finetune"  # of `storage.sequence_bytes`

    # ---- for methods

    def grow(self, step: Step) -> None:
        """Make the structure of a step whose task has just got its head."""

    def leave(self, task: str) -> None:
        """Make a task's weights final; its parts have been kept already."""

    def show(self, index: int) -> None:
        """Activate a task's masks."""

    # ---- hooks

    @property
    def names(self) -> list[str]:
        """Names of tasks by step."""
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

    _open = False  # True while the task of the step is learnt

    def _finish(self, task: str) -> None:
        if self.banked and parts.parts(self.network).learning == task:
            parts.finish(self.network, task)
        self.leave(task)
        self._open = False

    def select_task(self, index: int) -> None:
        """Activate head, parts and masks of a task."""
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
        """True under `open` while the task of the step is learnt."""
        return {"open": self._open}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the network holds the task of the step."""
        self._open = state["open"]
        if self.banked:
            bank = parts.parts(self.network)
            bank.active = self.names[self.step]
            bank.learning = bank.active if self._open else None

    def model_tensors(self) -> dict[str, Tensor]:
        """All but the values of parts that the bank has as well."""
        bank, banked = f"{parts.NAME}.", self.banked
        state = self.network.state_dict()
        return {name: t for name, t in state.items() if name.startswith(bank) or not is_below(name, banked)}

    def model_bytes(self) -> int:
        """Bytes by formula; tasks have banked normalisation of their own."""
        return formula_bytes(self.network, self._formula, self.learnt, norms=self.banked)

    # ---- tools

    def fix_shared(self) -> None:
        """Fix normalisation that tasks share as the first one left it."""
        parts.fix_norm(self.network, (*self.banked, "heads"))

    def backbone_norms(self) -> list[str]:
        """Dotted names of the backbone's normalisation layers that have parameters or statistics."""
        return [name for name in parts.norm_layers(self.network) if name.startswith("backbone.")]

    def bank(self, modules: Sequence[str], *, start: str | None = None) -> None:
        """Give tasks these parts (dotted names) of their own: the ones before keep theirs.

        The task of the step begins with a copy of those of the task `start`; None: of those that the network has.
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
        head = self.network.task_heads.of(self.names[self.step])
        free = {id(parameter) for parameter in (*besides, *head.parameters())}
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(id(parameter) in free or is_below(name, self.banked))
