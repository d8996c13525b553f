"""DFT*: heads of all steps from the start (Zhang, Ren, Cong et al., arXiv 2508.04267, 2025)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from densecl.losses import cross_entropy
from densecl.models.heads import BuildHead, Heads
from densecl.models.network import Output
from densecl.strategies.frozen import Frozen
from densecl.training.batch import Batch


class DFT(Frozen):
    """Cross-entropy among the outputs of all steps, later ones too; after step 0 heads of this and later steps train.

    It knows from the first step how many classes will come.
    """

    oracle = "classes"
    first_step = "own"
    task_share = "images"

    def make_heads(self, channels: int, auxiliary_channels: tuple[int, ...]) -> Heads:
        """Heads of every step of the stream."""
        outputs = [0, *(step.n_outputs for step in self.stream.steps)]
        return FutureHeads(channels, auxiliary_channels, [after - n for n, after in pairwise(outputs)])

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, a mean over all pixels, those without a label counting 0."""
        return cross_entropy(logits, batch.target, weight=batch.weight, normalise="pixels")

    def predict(self, output: Output) -> Tensor:
        """The most probable of the outputs learnt so far."""
        return output.logits[:, : self.network.n_outputs].max(1).indices


class FutureHeads(Heads):
    """Heads of all steps from the first `grow` on; `n_outputs` counts those of the steps that have begun."""

    def __init__(self, channels: int, auxiliary_channels: Sequence[int], sizes: Sequence[int]):
        super().__init__(channels, auxiliary_channels)
        self.sizes = list(sizes)

    def grow(self, outputs: int, build_head: BuildHead | None = None, device: torch.device | str | None = None) -> None:
        """Begin a step; the first one brings the outputs of all."""
        begun = len(self.outputs) + 1
        for size in self.sizes if begun == 1 else ():
            super().grow(size, build_head, device)
        self.outputs = self.sizes[:begun]
