"""RCIL (Zhang, Xiao, Liu, Chen, Cheng, CVPR 2022): two branches a convolution, merged after each step."""

import math

import torch
from torch import Tensor

from densecl.errors import SettingError
from densecl.losses import fold_new, pooled_channel_distillation, pooled_spatial_distillation
from densecl.models.network import Output
from densecl.seeding import derive
from densecl.strategies.base import Weight
from densecl.strategies.mib import MiB
from densecl.strategies.tools.branches import branch_shares, double, merge
from densecl.strategies.tools.rows import require_rows
from densecl.streams.scenario import Experience
from densecl.streams.stream import Step
from densecl.training.batch import Batch

__all__ = ["RCIL", "branch_shares", "merge"]


class RCIL(MiB):
    """MiB's loss, distillation of pooled features, and convolutions of which one branch is kept."""

    first_step = "own"
    needs = frozenset({"batchnorm"})
    distillation: Weight = 100.0  # weight of MiB's eq. 8
    pooled: Weight = 0.01  # of each encoder stage and, over windows, of the decoder's map; 5e-6 on ADE20K
    pooled_last: Weight = 0.0005  # of the logits over windows, of the decoder's map over channels; 5e-7 on ADE20K

    def configure(self) -> None:
        """Double the convolutions; refuse heads whose rows cannot be copied."""
        super().configure()
        require_rows(self, "rcil")
        if self.settings.freezes(1) and not self.settings.freezes(0):
            fault = "training.later.freeze=encoder: rcil opens two branches at each step, which would not be trained"
            raise SettingError(fault, "leave it out, or freeze the encoder from the start")
        self.network.backbone.require(self.needs)
        self._doubled = double(self.network.backbone)

    def build(self, step: Step) -> None:
        """Have both branches again."""
        for part in self._doubled:
            part.open()

    def before_step(self, experience: Experience) -> None:
        """Start new rows from the background's; no bias changes."""
        if self.step > 0 and experience.new_classes:
            with torch.no_grad():
                for place in self.network.heads.places:
                    place[-1].weight.copy_(place[0].weight[:1].expand_as(place[-1].weight))

    def train_mode(self) -> None:
        """Keep the statistics of branches of earlier steps, besides, and draw for the first batch."""
        super().train_mode()
        for part in self._doubled if self.step > 0 else ():
            part.branches[0].eval()
        self._draw()

    def after_iteration(self) -> None:
        """Draw for the next batch."""
        self._draw()

    def regulariser(self, output: Output, batch: Batch, teacher_output: Output) -> Tensor:
        """MiB's distillation, and that of features over windows and over channels, times sqrt(classes / new ones)."""
        assert output.decoded is not None
        assert output.coarse is not None
        own = [*output.encoded, output.decoded, fold_new(output.coarse, n_old=self.n_old)]
        wanted = [*teacher_output.encoded, teacher_output.decoded, teacher_output.coarse]
        pairs = list(zip(own, wanted, strict=True))
        weights = [*[self.pooled] * (len(pairs) - 2), self.pooled_last]
        spatial = [
            w * pooled_spatial_distillation(*maps) for w, maps in zip([self.pooled, *weights], pairs, strict=True)
        ]
        channel = [w * pooled_channel_distillation(*maps) for w, maps in zip(weights, pairs[:-1], strict=True)]
        features = torch.stack(spatial).mean() + torch.stack(channel).mean()
        n = self.network.n_outputs
        factor = math.sqrt(n / max(n - self.n_old, 1))
        return super().regulariser(output, batch, teacher_output) + factor * features

    def after_step(self, experience: Experience) -> None:
        """Merge both branches into the first."""
        for part in self._doubled:
            part.close()

    def _draw(self) -> None:
        """Draw the branches' shares of each channel, the same in all processes."""
        rng = torch.Generator().manual_seed(derive(self.seed, "branches", self.step, self.iterations))
        sizes = [part.channels for part in self._doubled]
        shares = branch_shares(torch.rand(sum(sizes), generator=rng)).to(self.device)
        for part, own in zip(self._doubled, shares.split(sizes, 1), strict=True):
            part.drawn = own
