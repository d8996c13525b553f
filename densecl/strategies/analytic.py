"""The analytic head (ACIL: Zhuang et al., NeurIPS 2022; SegACIL, arXiv 2412.10834): after step 0 a ridge regression."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from densecl.errors import RunError, SettingError
from densecl.losses.ridge import expand, gram, ridge
from densecl.models.heads import Heads
from densecl.models.network import Output
from densecl.seeding import generator
from densecl.strategies.base import Strategy
from densecl.strategies.tools.prototypes import at_places
from densecl.strategies.tools.ridge_heads import RidgeHeads
from densecl.streams.scenario import Experience
from densecl.training import distributed

__all__ = ["Analytic", "expand", "gram", "ridge"]


class Analytic(Strategy):
    """W = (A + gamma I)^-1 Q on randomly expanded features of step 0, with sums over every step's pixels.

    A = sum phi' phi and Q = sum phi' Y, so what steps give is what all their labels at once would give. After step 0,
    whose head is replaced too, nothing is trained by gradients.
    """

    first_step = "shared"
    uses_teacher = False
    width: Annotated[int, Field(ge=1)] = 1024  # E, of the expansion; memory grows with its square
    gamma: Annotated[float, Field(gt=0)] = 1.0  # weight of the squared norm of W
    background: Annotated[float, Field(gt=0, le=1)] = 0.3  # weight of its pixels: classes to come are among them
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.6  # sigmoid of the score from which an old class is believed

    def configure(self) -> None:
        """Begin without sums; plugins would find nothing to train."""
        if self.loop.plugins:
            raise SettingError("analytic trains nothing after step 0, so plugins do nothing", "name it alone")
        self._square = self._cross = torch.zeros(0, 0, dtype=torch.float64)

    def make_heads(self, channels: int, auxiliary_channels: tuple[int, ...]) -> Heads:
        """Heads of step 0, and the expansion of their input, uniform in +-1/sqrt(D)."""
        bound = channels**-0.5
        matrix = generator(self.seed, "analytic").uniform(-bound, bound, (channels, self.width))
        return RidgeHeads(channels, auxiliary_channels, torch.tensor(matrix, dtype=torch.float32))

    def length_factor(self, step: int) -> float:
        """Only step 0 is trained."""
        return 1.0 if step == 0 else 0.0

    def after_step(self, experience: Experience) -> None:
        """Add the step's images to the sums, in one pass without augmentation, and solve."""
        network, classes = self.network.eval(), self.network.n_outputs
        # nothing is hidden where old classes stay labelled (sequential), nor where none is new (another domain)
        hidden = self.step > 0 and self.stream.setting != "sequential" and classes > self.n_old
        square = torch.zeros(self.width, self.width, dtype=torch.float64, device=self.device)
        cross = square.new_zeros(self.width, classes)
        for batch in self.batches("analytic", augment=False):
            with torch.no_grad(), self.loop.precision.autocast():
                decoded = network.backbone(batch.image).decoded
            phi = expand(decoded.detach(), network.heads.matrix)
            labels = at_places(batch.target, decoded).flatten(1)  # (B, h w)
            if hidden:
                labels = name_background(labels, phi @ network.heads.solution, threshold=self.threshold)
            scale = torch.where(labels == 0, self.background**0.5, 1.0)  # once in each factor of a square
            own = gram(phi * scale.unsqueeze(2), labels, classes=classes)
            own[1][:, 0] *= self.background**0.5
            square, cross = square + own[0], cross + own[1]
        square, cross = distributed.total(square), distributed.total(cross)
        if len(self._square):
            square += self._square
            cross[:, : self._cross.shape[1]] += self._cross
        self._square, self._cross = square, cross
        self._solve()

    def predict(self, output: Output) -> Tensor:
        """The output with the highest score."""
        if not len(self._square):
            raise RunError("the sums of analytic, which its head is solved from, are gone", "run it again with --fresh")
        return super().predict(output)

    def state_dict(self) -> dict[str, Any]:
        """Both sums; the expansion comes from the seed."""
        return {"square": self._square, "cross": self._cross}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums and solve again."""
        self._square, self._cross = state["square"], state["cross"]
        if len(self._square):
            self._solve()

    def stored_bytes(self) -> int:
        """Those of both sums."""
        return sum(x.numel() * x.element_size() for x in (self._square, self._cross))

    def model_tensors(self) -> dict[str, Tensor]:
        """The network with the expansion and the solution."""
        heads = self.network.heads
        return super().model_tensors() | {"heads.matrix": heads.matrix, "heads.solution": heads.solution}

    def _solve(self) -> None:
        self.network.heads.solution = ridge(self._square, self._cross, gamma=self.gamma).float()


def name_background(labels: Tensor, scores: Tensor, *, threshold: float = 0.6) -> Tensor:
    """Labels in which the earlier solution names the background where its best score is high enough.

    Args:
        labels: (B, n) int64; not changed, nor are labels other than 0 in the result.
        scores: (B, n, C_old).
        threshold: 0..1, of the sigmoid of that score, which is near 1 (and its sigmoid near 0.73) at its class.
    """
    best, label = scores.max(-1)
    return torch.where((labels == 0) & (best.sigmoid() >= threshold), label, labels)
