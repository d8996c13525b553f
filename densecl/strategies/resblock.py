"""Resblock: one autoencoder for all tasks, residual blocks between its halves for each (Matsumoto's slides, 2019)."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from densecl.errors import SettingError
from densecl.losses.images import absolute_error
from densecl.models import ResBlockNet
from densecl.models.network import Output, upsample
from densecl.seeding import seed_torch
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

    first_step, uses_teacher = "own", False
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
        backbone = self.network.backbone
        if not isinstance(backbone, ResBlockNet):
            raise SettingError(f"resblock cannot use {type(backbone).__name__}", "give --backbone resblock, or none")
        with torch.random.fork_rng(devices=[]):
            seed_torch(self.seed, "blocks")
            backbone.set_blocks(self.blocks)

    def length_factor(self, step: int) -> float:
        """Step 0: the autoencoder, then the task; by turns, as many iterations of either."""
        return 1.0 + (step == 0) * (1.0 if self.training == "alternating" else self.first)

    def grow(self, step: Step) -> None:
        """Add the autoencoder's head in step 0; later train blocks of the task's own and the head alone."""
        if step.step == 0:
            self.network.add_module(AUTOENCODER, self.network.backbone.build_head(self.network.backbone.channels, 3))
        else:
            self.bank(["backbone.blocks"], start=self.names[0] if step.step > 1 else None)
            self.freeze()

    def param_groups(self) -> list[dict[str, Any]]:
        """All parameters in step 0: those not trained at the moment get no gradient."""
        whole = {"params": self.network.parameters(), "factor": lambda n, i: decay(self.settings, n, i, self._first(n))}
        return super().param_groups() if self.step else [whole]

    def train_mode(self) -> None:
        """Training mode; then fix the parts that the next iteration does not train."""
        super().train_mode()
        self._turn = None
        self.after_iteration()

    def after_iteration(self) -> None:
        """In step 0 let the autoencoder or the task be trained next; the other one's parameters get no gradient."""
        if self.step > 0 or self.iterations >= self.planned or self._turn == self._reconstructs:
            return
        self._turn = reconstructs = self._reconstructs
        self.network.train()
        self.network.backbone.train_parts(halves=reconstructs or self.training == "sequential", blocks=not reconstructs)
        self.network.heads.requires_grad_(not reconstructs)
        self.network.get_submodule(AUTOENCODER).requires_grad_(reconstructs)

    @property
    def task_share(self) -> Literal["labelled", "images"]:  # type: ignore[override]
        """The autoencoder's loss is a mean over images, not over labelled pixels."""
        return "images" if self._reconstructs else "labelled"

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """The task's loss, or in the autoencoder's turn L1 of the image given back."""
        if not self._reconstructs:
            return super().task_loss(output, batch, teacher_output)
        assert output.decoded is not None
        mean, std = self.loop.normalisation
        image = upsample(self.network.get_submodule(AUTOENCODER)(output.decoded), batch.image).float()
        return absolute_error(image, encode((batch.image.float() * std + mean) * 255))

    def after_step(self, experience: Experience) -> None:
        """Keep the task, with the blocks in use."""
        self.network.backbone.use_blocks = True
        super().after_step(experience)

    def model_tensors(self) -> dict[str, Tensor]:
        """All but the autoencoder's head."""
        return {k: v for k, v in super().model_tensors().items() if not k.startswith(f"{AUTOENCODER}.")}

    @property
    def _reconstructs(self) -> bool:
        """True if the next iteration is the autoencoder's."""
        first = self._first(self.planned)
        return self.step == 0 and (self.iterations % 2 == 0 if first is None else self.iterations < first)

    def _first(self, iterations: int) -> int | None:
        """The iterations of the autoencoder alone, of all of step 0; None: by turns."""
        return None if self.training == "alternating" else max(1, round(iterations * self.first / (1 + self.first)))
