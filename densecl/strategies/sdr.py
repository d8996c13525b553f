"""SDR (Michieli and Zanuttigh, CVPR 2021): prototypes match, attract and repel the features of classes."""

from typing import Any

import torch
from torch import Tensor

from densecl.errors import SettingError
from densecl.losses import feature_sparsity, prototype_attraction, prototype_matching, prototype_separation
from densecl.losses.latent import Form, update_prototypes
from densecl.models.network import Output
from densecl.strategies.base import Weight
from densecl.strategies.mib import MiB
from densecl.strategies.tools.prototypes import at_places, class_sums
from densecl.strategies.tools.whole import as_share, of_all
from densecl.streams.scenario import Experience
from densecl.training import distributed
from densecl.training.batch import Batch

__all__ = ["SDR", "update_prototypes"]


class SDR(MiB):
    """MiB's losses with new heads as they come, and four terms on the encoder's last map."""

    whole_batches = True
    distillation: Weight = 100.0  # weight of MiB's eq. 8
    matching: Weight = 0.01  # of mean features and prototypes of the classes that the teacher sees in background
    attraction: Weight = 0.001  # of features and their prototypes
    separation: Weight = 0.001  # of mean features from each other
    sparsity: Weight = 0.001
    form: Form = "exact"  # published: channels mix, and prototypes are those that training met, at step 0 too

    @classmethod
    def shares_first_step(cls, values: dict[str, Any]) -> bool:
        """True unless prototypes are gathered while step 0 trains."""
        return values.get("form", cls.form) == "exact"

    def configure(self) -> None:
        """Begin without prototypes; refuse an encoder that stays as it is."""
        super().configure()
        if self.settings.freezes(1):
            key = "training.freeze" if self.settings.freezes(0) else "training.later.freeze"
            raise SettingError(f"{key}=encoder: all terms of sdr act on its last map", "train it, or use mib")
        self._prototypes = self._counts = torch.zeros(0, device=self.device)

    def before_step(self, experience: Experience) -> None:
        """Leave new heads as they are."""

    def task_loss(self, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor:
        """MiB's; published prototypes follow step 0 too."""
        if self.step == 0 and self.form == "published":
            f = output.encoded[-1]
            self._follow(*of_all(batch, f.detach(), at_places(batch.target, f)))
        return super().task_loss(output, batch, teacher_output)

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """MiB's distillation and the four terms, of the whole batch."""
        f = output.encoded[-1]
        named = at_places(teacher_output.logits.argmax(1), f)
        f, y, named = of_all(batch, f, at_places(batch.target, f), named)
        self._follow(f, y)
        hidden = torch.where(y == 0, named, 0)
        term = self.matching * prototype_matching(f, hidden, self._prototypes, form=self.form)
        term = term + self.attraction * prototype_attraction(f, y, self._prototypes, form=self.form)
        term = term + self.separation * prototype_separation(f, y, form=self.form)
        term = term + self.sparsity * feature_sparsity(f.relu(), y)  # where a stage ends without one
        return super().regulariser(output, batch, teacher_output) + as_share(term, batch)

    @torch.no_grad()
    def after_step(self, experience: Experience) -> None:
        """Take the prototypes of the step's classes anew, in evaluation, background's where it hides nothing."""
        if self.form == "published":
            return
        network, classes = self.network.eval(), range(0 if self._open else self.n_old, self.network.n_outputs)
        sums, counts = torch.zeros(()), torch.zeros(())
        for batch in self.batches("prototypes"):
            with self.loop.precision.autocast():
                f = network.backbone(batch.image).encoded[-1].double()
            own, places = class_sums(f, at_places(batch.target, f), classes=classes)
            sums, counts = sums.to(own) + own, counts.to(places) + places
        sums, counts = distributed.total(sums), distributed.total(counts)
        self._grow(sums.shape[1])
        for k in (counts > 0).nonzero().flatten().tolist():
            self._prototypes[classes[k]], self._counts[classes[k]] = (sums[k] / counts[k]).float(), counts[k].float()

    def state_dict(self) -> dict[str, Any]:
        """Prototypes and the places that each is the mean of."""
        return {"prototypes": self._prototypes, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both."""
        self._prototypes, self._counts = state["prototypes"], state["counts"]

    def stored_bytes(self) -> int:
        """Bytes of both."""
        return self._prototypes.nbytes + self._counts.nbytes

    @property
    def _open(self) -> bool:
        """True if no old class hides in the step's background."""
        return self.n_old == 0 or self.stream.setting == "sequential" or self.network.n_outputs == self.n_old

    @torch.no_grad()
    def _follow(self, features: Tensor, labels: Tensor) -> None:
        """Let prototypes follow a batch: background's where it hides nothing; published: without the first class."""
        self._grow(features.shape[1])
        if self.form == "exact":
            left_out = torch.zeros_like(labels, dtype=torch.bool) if self._open else labels == 0
        else:
            left_out = labels == labels.min() if self.stream.setting == "overlapped" else labels == 255
        self._prototypes, self._counts = update_prototypes(
            self._prototypes, self._counts, features, labels.masked_fill(left_out, 255), form=self.form
        )

    def _grow(self, width: int) -> None:
        """Have a row for every output."""
        known, more = self._prototypes.view(len(self._counts), width), self.network.n_outputs - len(self._counts)
        self._prototypes = torch.cat([known, known.new_zeros(more, width)])
        self._counts = torch.cat([self._counts, self._counts.new_zeros(more)])
