"""Labels that a teacher gives to what a step leaves unlabelled."""

import torch
from torch import Tensor

from densecl.strategies.base import Strategy
from densecl.streams.scenario import Experience
from densecl.training import distributed


def fill_in(target: Tensor, probability: Tensor, *, first: int, threshold: float) -> Tensor:
    """Labels in which the teacher's most probable class stands where it is certain and nothing else is known.

    Args:
        target: (B, H, W) int64; labels below `first` say that no class is known, and may be replaced.
        probability: (B, C, H, W) of labels 0, 1, ... for the teacher; a constant.
        first: the first label that is a class: the teacher's word counts from here on.
        threshold: the least probability that counts.
    """
    best, label = probability.detach().max(1)
    sure = (target < first) & (label >= first) & (best >= threshold)
    return torch.where(sure, label, target)


@torch.no_grad()
def sure_labels(strategy: Strategy, experience: Experience, least: float) -> dict[int, set[int]]:
    """Position in the step -> labels that the teacher gives a pixel of the background with probability `least`."""
    if experience.step == 0:
        return {}
    position_of = {int(index): position for position, index in enumerate(experience.images.indices)}
    found: dict[int, set[int]] = {}
    for batch in strategy.batches("memory", augment=False):
        with strategy.loop.precision.autocast():
            logits = strategy.teacher(batch.image).logits.float()
        probability, label = strategy.class_probabilities(logits).max(1)
        sure = (probability >= least) & (batch.target == 0)
        for index, labels, places in zip(batch.index.tolist(), label + 1, sure, strict=True):
            found[position_of[index]] = set(labels[places].unique().tolist())
    return {position: labels for part in distributed.from_all(found) for position, labels in part.items()}
