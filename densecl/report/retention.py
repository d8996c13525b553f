"""What later steps do to earlier classes: the IoU that each class loses, and what its pixels are predicted as."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from densecl.records.record import Record
from densecl.tables.scores import Scores, segmentation


class Shares(NamedTuple):
    """Predictions on pixels of previous classes; fractions of 1 that sum to 1."""

    kept: float  # their own class
    background: float  # label 0
    current: float  # a class of the step just learnt
    other: float  # another previous class


def lost(record: Record, classes: Sequence[int], steps: int) -> np.ndarray:
    """IoU when learnt minus IoU after each later step; positive is worse.

    Returns:
        (len(classes), steps) float64; 0 at the step that brings a class, NaN before it and where an IoU is unknown.
    """
    result = np.full((len(classes), steps), np.nan)
    row = {label: index for index, label in enumerate(classes)}
    learnt: dict[int, float] = {}
    for k, (step, iou) in enumerate(zip(record.steps[:steps], Scores(record).by_step, strict=False)):
        learnt |= {label: iou[label] for label in step.new_classes if label in iou}
        for label in learnt.keys() & row.keys() & iou.keys():
            result[row[label], k] = learnt[label] - iou[label]
    return result


def mean(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over runs of the known values of each cell; NaN where none is known."""
    return np.ma.masked_invalid(np.stack(matrices)).mean(0).filled(np.nan)


def shares(confusion: Sequence[Sequence[int]], previous: Iterable[int], current: Iterable[int]) -> Shares | None:
    """The shares of one confusion matrix (rows the truth, columns the prediction), background left out of `previous`.

    None if no pixel is of a previous class.
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
        if evaluation is not None and evaluation.confusion is not None and previous:
            after = shares(evaluation.confusion, previous, step.new_classes)
            result |= {} if after is None else {index: after}
    return result
