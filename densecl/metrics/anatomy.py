"""What a class lost, split into its features and the head on them, and by where the pixels went. NumPy only."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np


class Parts(NamedTuple):
    """Numbers by where pixels went: numbers of pixels, or the IoU that they cost."""

    background: float  # pixels of the class called background
    newer: float  # called a class of a later step
    older: float  # called another class of its own step or of an earlier one
    taken: float  # pixels of others called the class


class Split(NamedTuple):
    """The IoU that a class lost, in terms that add up to it."""

    representation: float  # what a linear head on the features lost
    classifier: Parts  # what the method's head lost beyond that

    @property
    def head(self) -> float:
        """The classifier's part."""
        return sum(self.classifier)

    @property
    def lost(self) -> float:
        """IoU of the reference minus IoU now."""
        return self.representation + self.head


def split(head: float, probe: float, reference_head: float, reference_probe: float, pixels: Parts) -> Split:
    """Split what a class lost against a reference, from four IoUs.

        lost           = reference_head - head
        representation = reference_probe - probe
        classifier     = (probe - head) - (reference_probe - reference_head)

    The probe is a linear head fitted on the features, in both networks alike; what it lacks at the reference already,
    such as detail, is no loss and drops out of the classifier's term. That term is shared out in proportion to the
    `pixels` that the probe labels right and the head wrong; to `taken` alone if there are none.
    """
    representation = reference_probe - probe
    classifier = (reference_head - head) - representation
    total = sum(pixels)
    shares = [count / total for count in pixels] if total else [0.0, 0.0, 0.0, 1.0]
    return Split(representation, Parts(*(classifier * share for share in shares)))


def pixels_of(unused: np.ndarray, taken: np.ndarray, label: int, newer: Collection[int]) -> Parts:
    """The pixels of a class that the probe labels right and the head wrong.

    Args:
        unused: (n, n) counts of pixels that the probe labels right; rows the truth, columns what the head says.
        taken: (n,) counts of pixels of others that the head alone calls a class, by that class.
        label: the class, not background.
        newer: labels of later steps.
    """
    row = np.asarray(unused[label], dtype=np.float64)
    later = row[[other for other in newer if other not in (0, label)]].sum()
    older = row.sum() - row[label] - row[0] - later
    return Parts(*(float(value) for value in (row[0], later, older, taken[label])))
