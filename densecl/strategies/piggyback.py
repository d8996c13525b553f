"""Piggyback: a binary mask a task on the weights of one fixed network."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from densecl.masking import binary
from densecl.seeding import derive
from densecl.strategies.by_task import ByTask
from densecl.strategies.storage import formula_bytes
from densecl.streams.stream import Step
from densecl.training.schedule import halfway, make_optimizer

Positive = Annotated[float, Field(gt=0)]


class Piggyback(ByTask):
    """Fixes the first task's network; each further task masks its weights (Mallya et al., ECCV 2018).

    Masks are on every convolution and linear layer but the last; scores are trained through a threshold as if it were
    not there (eq. 4-7). Weights and biases never change, so nothing is forgotten.
    """

    _formula = "piggyback"
    masks: Literal["binary", "ternary"] = "binary"
    init: Literal["constant", "proportional", "random"] = "constant"  # of the scores; see `masking.MaskSettings`
    initial: Positive = 1e-2  # score at the start
    threshold: Positive = 5e-3  # a weight counts where its score is at least this
    negative: float | None = None  # of ternary masks: -1 where a score is at most this; None: -threshold
    mask_lr: Positive = 1e-4
    head_lr: Positive = 1e-4  # of the head, and of a task's own normalisation
    head_decay: Annotated[float, Field(ge=0)] | None = None  # their weight decay; None: that of training
    mask_optimizer: Literal["adam", "sgd"] = "adam"
    scale_gradients: bool = False  # by 1 / mean |W| of each layer, for SGD
    schedule: Literal["halfway", "settings"] = "halfway"  # a tenth of the rate from half-way on, or as in training
    bn: Literal["fixed", "trained"] = "fixed"  # BatchNorm of the first task, or scale, shift and statistics of each
    mask_first: bool = False  # the first task masks too: the network is a pretrained one (section 6)

    @classmethod
    def shares_first_step(cls, values: dict[str, Any]) -> bool:
        """False where the first task learns a mask."""
        return super().shares_first_step(values) and not values.get("mask_first")

    def configure(self) -> None:
        """Refuse settings that make no mask."""
        self._settings()

    def grow(self, step: Step) -> None:
        """Train scores for the task, its head and, with `bn=trained`, its normalisation."""
        if not self.masked(step.step):
            return
        if not binary.tasks(self.network) and not self._added:
            binary.add_masks(self.network)
            self._added = True
        if self.bn == "trained":
            self.bank(self.backbone_norms())
        binary.begin(self.network, step.task.name, self._settings(), derive(self.seed, "masks", step.step))
        self.freeze(binary.score_parameters(self.network))

    def masked(self, index: int) -> bool:
        """True if a task has a mask."""
        return index > 0 or self.mask_first

    def param_groups(self) -> list[dict[str, Any]]:
        """Scores without weight decay, and the parameters without masks."""
        if not self.masked(self.step):
            return super().param_groups()
        scores = binary.score_parameters(self.network)
        masked = {id(parameter) for parameter in scores}
        others = [p for p in self.network.parameters() if p.requires_grad and id(p) not in masked]
        decay = {} if self.head_decay is None else {"weight_decay": self.head_decay}
        factor = {"factor": halfway} if self.schedule == "halfway" else {}
        return [
            {"params": scores, "lr": self.mask_lr, "weight_decay": 0.0, **factor},
            {"params": others, "lr": self.head_lr, **decay, **factor},
        ]

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Adam or SGD for masks, whatever trained the network."""
        if not self.masked(self.step):
            return super().make_optimizer(groups)
        name = "adamw" if self.mask_optimizer == "adam" else "sgd"  # no decay for scores, so AdamW is Adam for them
        return make_optimizer(groups, self.settings.model_copy(update={"optimizer": name}), self.step)

    def train_mode(self) -> None:
        """Fix shared normalisation also where the first task masks."""
        super().train_mode()
        if self.step == 0 and self.mask_first:
            self.fix_shared()

    def leave(self, task: str) -> None:
        """Keep one bit a weight."""
        if task in binary.tasks(self.network):
            binary.finish(self.network, task)

    def show(self, index: int) -> None:
        """Activate the mask of a task; none for the task that trained the network."""
        if self._added:
            binary.select(self.network, self.names[index] if self.masked(index) else None)

    _added = False

    def _settings(self) -> binary.MaskSettings:
        return binary.MaskSettings(
            self.masks, self.init, self.initial, self.threshold, self.negative, self.scale_gradients
        )

    def model_bytes(self) -> int:
        """Bytes by formula: a bit a weight, or two, of each further task."""
        masks: dict[str, Any] = {"bits": 1 if self.masks == "binary" else 2, "masked_first": self.mask_first}
        return formula_bytes(self.network, self._formula, self.learnt, norms=self.banked, **masks)
