"""Resblock: one autoencoder for all tasks, residual blocks between its halves for each (Matsumoto's slides, 2019)."""

from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.losses.images import absolute_error
from densecl.models import ResBlockNet
from densecl.models.network import Output, upsample
from densecl.seeding import derive
from densecl.strategies.by_task import ByTask
from densecl.streams.scenario import Experience
from densecl.streams.stream import Step
from densecl.tasks.base import encode
from densecl.training.batch import Batch
from densecl.training.schedule import decay

AUTOENCODER = "autoencoder"  # the head that gives the image back; a child of the network


class ResBlock(ByTask):
    """Encoder and decoder learn to give back the first task's images and are fixed; a task has blocks and a head.

    The slides name three ways to train and describe none; these are our reading. All act in step 0, which is longer by
    the autoencoder's iterations; later tasks train blocks and head alone.

    two-stage: first the autoencoder without blocks, then blocks and head of the first task on the fixed autoencoder.
    sequential: first the autoencoder, then all of it together with blocks and head, for the first task.
    alternating: the autoencoder and the first task's blocks and head by turns, an iteration each.
    """

    first_step: ClassVar[Literal["own", "shared"]] = "own"
    uses_teacher: ClassVar[bool] = False
    _formula = "resblock"
    blocks: Annotated[int, Field(ge=1)] = 6  # of each task; 6 and 9 in the slides
    training: Literal["two-stage", "sequential", "alternating"] = "two-stage"
    first: Annotated[float, Field(gt=0)] = 0.5  # the autoencoder's own iterations, in lengths of step 0; not by turns

    @classmethod
    def backbone_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The blocks of the backbone are a task's."""
        return {"blocks": values["blocks"]}

    def configure(self) -> None:
        """Give the backbone so many blocks, drawn from the run's seed."""
        if not isinstance(self.body, ResBlockNet):
            raise SettingError(f"resblock cannot use {type(self.body).__name__}", "give --backbone resblock, or none")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, "blocks"))
            self.body.set_blocks(self.blocks)

    body = property(attrgetter("network.backbone"))  # a `ResBlockNet`

    def length_factor(self, step: int) -> float:
        """Step 0: the autoencoder, then the task; by turns, as many iterations of either."""
        if step > 0:
            return 1.0
        return 2.0 if self.training == "alternating" else 1 + self.first

    def grow(self, step: Step) -> None:
        """Add the autoencoder's head in step 0; later train blocks of the task's own and the head alone."""
        self._doing = None
        if step.step == 0:
            self.network.add_module(AUTOENCODER, self.body.build_head(self.body.channels, 3))
        else:
            self.bank(["backbone.blocks"], start=self.names[0] if step.step > 1 else None)
            self.freeze()
        self.body.use_blocks = True

    def param_groups(self) -> list[dict[str, Any]]:
        """All parameters in step 0: those not trained at the moment get no gradient."""
        if self.step:
            return super().param_groups()
        group: dict[str, Any] = {"params": list(self.network.parameters())}
        return [group if self.training == "alternating" else {**group, "factor": self._factor}]

    def train_mode(self) -> None:
        """Training mode; then fix the parts that the next iteration does not train."""
        super().train_mode()
        self._doing = None
        self.after_iteration()

    def after_iteration(self) -> None:
        """In step 0 let the autoencoder or the task be trained next."""
        if self.step == 0 and self.iterations < self.planned:
            self._prepare("autoencoder" if self._reconstructs() else "task")

    @property
    def task_share(self) -> Literal["labelled", "images"]:  # type: ignore[override]
        """The autoencoder's loss is a mean over images, not over labelled pixels."""
        return "images" if self.step == 0 and self._reconstructs() else "labelled"

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """The task's loss, or in the autoencoder's turn L1 of the image given back."""
        if self.step > 0 or not self._reconstructs():
            return super().task_loss(output, batch, teacher_output)
        assert output.decoded is not None
        mean, std = self.loop.normalisation
        head: nn.Module = getattr(self.network, AUTOENCODER)
        image = upsample(head(output.decoded), batch.image).float()
        return absolute_error(image, encode((batch.image.float() * std + mean) * 255))

    def after_step(self, experience: Experience) -> None:
        """Keep the task, with the blocks in use."""
        self.body.use_blocks = True
        super().after_step(experience)

    def model_tensors(self) -> dict[str, Tensor]:
        """All but the autoencoder's head."""
        return {k: v for k, v in super().model_tensors().items() if not k.startswith(f"{AUTOENCODER}.")}

    _doing: str | None = None

    def _reconstructs(self) -> bool:
        """True if the next iteration of step 0 is the autoencoder's."""
        if self.training == "alternating":
            return self.iterations % 2 == 0
        return self.iterations < self._first(self.planned)

    def _first(self, iterations: int) -> int:
        """The iterations of the autoencoder alone, of all of step 0."""
        return max(1, round(iterations * self.first / (1 + self.first)))

    def _factor(self, iterations: int, i: int) -> float:
        return decay(self.settings, iterations, i, self._first(iterations))

    def _prepare(self, doing: str) -> None:
        """Let one of both be trained; the other one's parameters get no gradient."""
        if doing == self._doing:
            return
        self._doing = doing
        reconstructs = doing == "autoencoder"
        halves = reconstructs or self.training == "sequential"
        self.body.use_blocks = not reconstructs
        self.network.train()
        self.body.requires_grad_(halves).train(halves)
        self.body.blocks.requires_grad_(not reconstructs).train(not reconstructs)
        self.network.heads.requires_grad_(not reconstructs)
        getattr(self.network, AUTOENCODER).requires_grad_(reconstructs)
