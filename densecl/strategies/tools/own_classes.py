"""The supervised loss of sigmoid outputs without background: each sample teaches the classes that its step labels."""

from torch import Tensor

from densecl.losses import binary_cross_entropy
from densecl.strategies.base import Strategy
from densecl.training.batch import Batch, weighted


def own_classes(strategy: Strategy, step: int) -> range:
    """Channels of the classes that samples of a step label: those it brought, or all where old ones stay labelled."""
    old = 0 if step == 0 else strategy.stream.steps[step - 1].n_outputs - 1
    known = strategy.stream.steps[step].n_outputs - 1
    return range(0 if strategy.stream.setting == "sequential" or old == known else old, known)


def own_classes_loss(strategy: Strategy, logits: Tensor, batch: Batch, *, positive: float) -> Tensor:
    """Binary cross-entropy, a mean over all pixels, of the classes that a sample's own step labels.

    Channel k of `logits` is label k + 1; void is negative; `positive` weighs a pixel in its own channel.
    """
    loss = logits.new_zeros(())
    # plugins may replay samples of earlier steps
    for step in range(strategy.step + 1) if strategy.loop.plugins else (strategy.step,):
        own = own_classes(strategy, step)
        weight = weighted((batch.step == step).to(logits.dtype).view(-1, 1, 1).expand(batch.target.shape), batch)
        channels = logits[:, own.start : own.stop]
        term = binary_cross_entropy(
            channels, batch.target, first=own.start + 1, positive=positive, void="negative", weight=weight
        )
        loss = loss + term * weight.mean()  # a sum over pixels of the step's samples, divided by all pixels
    return loss
