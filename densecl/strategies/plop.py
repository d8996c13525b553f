"""PLOP (Douillard, Chen, Dapogny, Cord, CVPR 2021): pseudo-labels where the teacher is certain, and Local POD."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from densecl.losses import cross_entropy, fold_new, local_pod
from densecl.models.network import Output
from densecl.strategies.base import Strategy, Weight
from densecl.strategies.tools.uncertainty import Form, medians, pseudo_labels, uncertainty
from densecl.streams.scenario import Experience
from densecl.training import distributed
from densecl.training.batch import Batch

__all__ = ["PLOP", "medians", "pseudo_labels", "uncertainty"]

BINS = 100  # of the uncertainty over [0, 1]


class PLOP(Strategy):
    """Cross-entropy on pseudo-labels, and distillation of features pooled at several scales (sections 3.2 and 3.3)."""

    first_step = "shared"
    maps = frozenset({"raw"})
    pod: Weight = 0.01  # weight of each encoder stage before its last activation, and of the decoder's map
    pod_logits: Weight = 0.0005  # of the logits before they grow; 1e-5 on ADE20K
    form: Form = "exact"  # of uncertainty and median; see `uncertainty` and `medians`

    def configure(self) -> None:
        """Begin without thresholds."""
        self._cut = torch.zeros(0, dtype=torch.float64)

    @property
    def task_share(self) -> Literal["labelled", "images"]:  # type: ignore[override]
        """From step 1 on the supervised term is a mean over all pixels."""
        return "images" if self.step > 0 else "labelled"

    def before_step(self, experience: Experience) -> None:
        """Start new outputs from the background's, and measure the teacher's uncertainty of each class."""
        if self.step == 0:
            return
        self.network.heads.init_from_background()
        counts = torch.zeros(self.n_old, BINS, dtype=torch.float64, device=self.device)
        for batch in self.batches("thresholds"):
            teacher_output = self.loop.teach(batch.image)
            assert teacher_output is not None
            logits = teacher_output.logits
            doubt = uncertainty(logits, n_classes=self.network.n_outputs, form=self.form)
            bins = (doubt * BINS).long().clamp(max=BINS - 1)
            cells = (logits.argmax(1) * BINS + bins)[batch.target == 0]
            counts += cells.bincount(minlength=counts.numel()).view_as(counts)
        self._cut = medians(distributed.total(counts), form=self.form)

    def prepare_batch(self, batch: Batch, teacher_output: Output | None) -> Batch:
        """Let the teacher name the background where it is certain; the share that it names weighs the image."""
        if teacher_output is None:
            return batch
        n_classes = self.network.n_outputs
        labels, share = pseudo_labels(
            batch.target, teacher_output.logits, self._cut, n_old=self.n_old, n_classes=n_classes, form=self.form
        )
        labelled = (batch.target > 0) & (batch.target < self.n_old)  # old classes that are labelled: replayed samples
        weight = share if batch.weight is None else batch.weight * share.view(-1, *[1] * (batch.weight.ndim - 1))
        return batch._replace(target=torch.where(labelled, batch.target, labels), weight=weight)

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy; from step 1 on over all pixels, those without a label counting 0."""
        normalise = "pixels" if self.step > 0 else "weight"
        return cross_entropy(logits, batch.target, weight=batch.weight, normalise=normalise)

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """Local POD (eq. 4-7) of each map, averaged over maps, times sqrt(classes / new classes)."""
        assert output.decoded is not None
        assert output.coarse is not None
        own = [*output.raw, output.decoded, fold_new(output.coarse, n_old=self.n_old)]
        wanted = [*teacher_output.raw, teacher_output.decoded, teacher_output.coarse]
        weights = [self.pod] * (len(own) - 1) + [self.pod_logits]
        terms = [w * local_pod(a, t) for w, a, t in zip(weights, own, wanted, strict=True)]
        n = self.network.n_outputs
        return math.sqrt(n / max(n - self.n_old, 1)) * torch.stack(terms).mean()

    def state_dict(self) -> dict[str, Any]:
        """The thresholds of the step."""
        return {"cut": self._cut}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the thresholds."""
        self._cut = state["cut"]
