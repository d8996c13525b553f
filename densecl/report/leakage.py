"""Where the pixels of previously learnt classes go: kept, lost to background, or taken for the newest classes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from densecl.records.record import Record
from densecl.tables.scores import segmentation


class Shares(NamedTuple):
    """What pixels of the previous classes are predicted as; fractions of 1 that sum to 1."""

    kept: float  # their own class
    background: float  # label 0
    current: float  # a class of the step just learnt
    other: float  # another previous class


def shares(confusion: Sequence[Sequence[int]], previous: Iterable[int], current: Iterable[int]) -> Shares | None:
    """The shares of one confusion matrix.

    Args:
        confusion: (n, n) counts of pixels, rows the truth, columns the prediction.
        previous: labels of earlier steps; background (0) is left out.
        current: labels of the step just learnt.

    Returns:
        None where no pixel is of a previous class.
    """
    matrix = np.asarray(confusion, dtype=np.int64)
    old = sorted({label for label in previous if 0 < label < len(matrix)})
    new = sorted({label for label in current if 0 < label < len(matrix)} - set(old))
    rows = matrix[old]
    total = int(rows.sum())
    if not total:
        return None
    kept, background, taken = (int(part.sum()) for part in (matrix[old, old], rows[:, 0], rows[:, new]))
    return Shares(*(part / total for part in (kept, background, taken, total - kept - background - taken)))


def by_step(record: Record) -> dict[int, Shares]:
    """Step -> shares after it, for the steps that have previous classes and a confusion matrix."""
    result = {}
    for index, step in enumerate(record.steps):
        evaluation = segmentation(step)
        previous = {label for earlier in record.steps[:index] for label in earlier.new_classes}
        if evaluation is None or evaluation.confusion is None or not previous:
            continue
        found = shares(evaluation.confusion, previous, step.new_classes)
        if found is not None:
            result[index] = found
    return result
