"""What DKD and STAR share: sigmoid outputs of classes alone."""

import torch
from torch import Tensor

from densecl.models.heads import Heads
from densecl.models.network import Output
from densecl.strategies.base import Strategy, Weight
from densecl.strategies.tools.heads import ClassHeads
from densecl.strategies.tools.own_classes import own_classes_loss
from densecl.training.batch import Batch


class WithoutBackground(Strategy):
    """No output stands for background: a pixel that every class denies has label 0."""

    sigmoid = True
    published_labels = "current"
    task_share = "images"
    positive: Weight = 1.0  # of a class's own pixels

    def make_heads(self, channels: int, auxiliary_channels: tuple[int, ...]) -> Heads:
        """Heads of classes alone."""
        return ClassHeads(channels, auxiliary_channels)

    def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy, a mean over all pixels, of the classes that a sample's own step labels."""
        return own_classes_loss(self, logits, batch, positive=self.positive)

    def predict(self, output: Output) -> Tensor:
        """The most probable class where one is above a half, else 0."""
        return labels(output.logits)


def labels(logits: Tensor, *, cut: float = 0.0) -> Tensor:
    """(B, H, W) labels of sigmoid logits (B, C, H, W): 0 where none is above `cut`, else 1 + the largest one's."""
    if not logits.shape[1]:
        return torch.zeros_like(logits[:, :0].sum(1), dtype=torch.int64)
    best, label = logits.max(1)
    return torch.where(best > cut, label + 1, 0)
