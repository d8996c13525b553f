"""WSN: each task chooses its weights in one network; those of earlier tasks never change (Kang et al., ICML 2022)."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from densecl.masking import wsn
from densecl.masking.parametrized import HEADS, add_views
from densecl.masking.wsn import SubnetWeight
from densecl.seeding import derive
from densecl.strategies.by_task import ByTask
from densecl.streams.stream import Step
from densecl.training.schedule import make_optimizer


class WSN(ByTask):
    """Winning subnetworks: weights and scores are trained together; a task sees the weights of largest |score|.

    A weight that a finished task has chosen gets no gradient, but later tasks may choose it too. Scores are kept from
    task to task. Biases are the first task's; normalisation and the head are each task's own.
    """

    first_step: ClassVar[Literal["own", "shared"]] = "own"
    _formula = "wsn"
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.5  # share of a layer's weights that a task does without
    mask: Literal["final", "last_batch"] = "final"  # of the final scores, or that of the last batch
    optimizer: Literal["adam", "settings"] = "adam"
    lr: Annotated[float, Field(gt=0)] | None = 1e-3  # None: that of the settings

    def grow(self, step: Step) -> None:
        """Train scores, the weights that no task has chosen, normalisation and the head."""
        if step.step == 0:
            add_views(self.network, SubnetWeight, HEADS, "mask")
        self.bank(self.backbone_norms())
        wsn.begin(self.network, step.task.name, sparsity=self.sparsity, seed=derive(self.seed, "scores"))
        if step.step > 0:
            self.freeze(wsn.trained(self.network))

    def param_groups(self) -> list[dict[str, Any]]:
        """All that is trained, without weight decay: it would change weights of earlier tasks."""
        rate = {} if self.lr is None else {"lr": self.lr}
        return [{**group, "weight_decay": 0.0, **rate} for group in super().param_groups()]

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Adam, made anew for each task."""
        adam = {"optimizer": "adamw"} if self.optimizer == "adam" else {}  # without weight decay AdamW is Adam
        return make_optimizer(groups, self.settings.model_copy(update=adam), self.step)

    def train_mode(self) -> None:
        """Training mode."""
        super().train_mode()
        self._note()

    def after_iteration(self) -> None:
        """Keep the mask of the last batch, where that is asked for."""
        self._note()

    def _note(self) -> None:
        if self.mask == "last_batch" and self.iterations == self.planned - 1:
            wsn.note(self.network)

    def leave(self, task: str) -> None:
        """Keep one bit a weight."""
        wsn.finish(self.network, task)

    def show(self, index: int) -> None:
        """Activate the weights that a task has chosen."""
        wsn.select(self.network, self.names[index])

    def model_tensors(self) -> dict[str, Tensor]:
        """All but the scores, which no learnt task needs."""
        return {name: t for name, t in super().model_tensors().items() if not name.endswith(f".0.{wsn.SCORES}")}
