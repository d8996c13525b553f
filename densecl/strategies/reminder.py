"""REMINDER (Phan, Ta, Phung, Tran-Thanh, Bouzerdoum, CVPR 2022): PLOP, and distillation by similarity of classes."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from densecl.losses import similarity_distillation
from densecl.losses.reduction import widen
from densecl.models.network import Output
from densecl.strategies.base import Weight
from densecl.strategies.plop import PLOP
from densecl.streams.samples import UNCOUNTED
from densecl.streams.scenario import Experience
from densecl.training import distributed
from densecl.training.batch import Batch, sizes


class Reminder(PLOP):
    """PLOP's loss, and on pixels of new classes a distillation of the old classes that are like them."""

    similar: Weight = 0.5  # of class similarity weighted distillation
    temperature: Annotated[float, Field(gt=0)] = 3.0
    cut: Annotated[float, Field(ge=0)] = 0.0  # delta: weights below delta / old outputs are 0; 1 on ADE20K

    def configure(self) -> None:
        """Begin without prototypes."""
        super().configure()
        self._prototypes = torch.zeros(0, self.network.backbone.channels, device=self.device)

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """PLOP's term and the similarity distillation, a mean over the whole batch's pixels of new classes."""
        assert output.decoded is not None
        term = super().regulariser(output, batch, teacher_output)
        new, counted = range(self.n_old, self.network.n_outputs), batch.index != UNCOUNTED
        sums, pixels = class_sums_of_grown(output.decoded[counted], batch.target[counted], classes=new)
        own = torch.cat([pixels.sum()[None], sizes(batch)[1:]])  # pixels, images
        all_sums, all_pixels, whole = map(distributed.total, (sums, pixels, own))
        weights = similarity(all_sums / all_pixels.clamp(min=1).unsqueeze(1), self._prototypes, cut=self.cut)
        similar = similarity_distillation(
            output.logits, teacher_output.logits, batch.target, weights, temperature=self.temperature
        )
        share = (own / whole.clamp(min=1))[0] * whole[1] / own[1].clamp(min=1)  # the loop multiplies by that of images
        return term + self.similar * share * similar

    @torch.no_grad()
    def after_step(self, experience: Experience) -> None:
        """Keep the prototypes of the step's classes, background's at step 0: the mean of the means of batches."""
        network, classes = self.network.eval(), range(self.n_old, self.network.n_outputs)
        sums = torch.zeros(len(classes), self._prototypes.shape[1], device=self.device)
        batches = sums.new_zeros(len(classes))
        for batch in self.batches("prototypes", whole=True):
            with self.loop.precision.autocast():
                decoded = network.backbone(batch.image).decoded
            own, pixels = class_sums_of_grown(decoded, batch.target, classes=classes)
            sums += own / pixels.clamp(min=1).unsqueeze(1)
            batches += pixels > 0
        self._prototypes = torch.cat([self._prototypes, sums / batches.clamp(min=1).unsqueeze(1)])

    def state_dict(self) -> dict[str, Any]:
        """Thresholds and prototypes."""
        return super().state_dict() | {"prototypes": self._prototypes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both."""
        super().load_state_dict(state)
        self._prototypes = state["prototypes"]

    def stored_bytes(self) -> int:
        """Bytes of the prototypes."""
        return self._prototypes.nbytes


def class_sums_of_grown(features: Tensor, target: Tensor, *, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Sums over the pixels of each class of features grown to the labels' size, (K, D), and its pixels, (K,).

    Growing is linear, so the labels are brought to the features by its transpose instead: the same sums without maps of
    D channels at the size of the image. Arguments as `class_means`.
    """
    features = widen(features.detach())
    rows, columns = (
        F.interpolate(torch.eye(small).to(features)[None], size=large, mode="linear", align_corners=True)[0]
        for small, large in zip(features.shape[2:], target.shape[1:], strict=True)
    )  # (h, H), (w, W)
    wanted = torch.as_tensor(classes, device=target.device).view(-1, 1, 1)
    sums, pixels = features.new_zeros(len(wanted), features.shape[1]), features.new_zeros(len(wanted))
    with torch.autocast(features.device.type, enabled=False):
        for f, y in zip(features, target, strict=True):  # one at a time: there may be many classes
            own = (y == wanted).to(features.dtype)  # (K, H, W)
            sums += (rows @ own @ columns.T).flatten(1) @ f.flatten(1).T
            pixels += own.sum((1, 2))
    return sums, pixels


def class_means(features: Tensor, target: Tensor, *, classes: Sequence[int]) -> Tensor:
    """(K, D) mean features of classes, grown to the labels' size bilinearly with align_corners; 0 for an absent one.

    Args:
        features: (B, D, h, w), any floating type; a constant, computed in at least float32.
        target: (B, H, W) int64; never changed.
        classes: the K labels that are looked for.
    """
    sums, pixels = class_sums_of_grown(features, target, classes=classes)
    return sums / pixels.clamp(min=1).unsqueeze(1)


def similarity(means: Tensor, prototypes: Tensor, *, cut: float = 0.0) -> Tensor:
    """(C_new, C_old) softmax over old classes of the cosine between means and prototypes; entries < cut / C_old are 0.

    Args:
        means: (C_new, D) of new classes; a constant.
        prototypes: (C_old, D), background first; constants.
        cut: delta.
    """
    means, prototypes = widen(means.detach()), widen(prototypes.detach())
    weights = (F.normalize(means, dim=1) @ F.normalize(prototypes.to(means.dtype), dim=1).T).softmax(1)
    return weights.where(weights >= cut / max(1, len(prototypes)), 0)
