"""How much of each class is lost after each step."""

from collections.abc import Sequence

import numpy as np

from densecl.records.record import Record
from densecl.tables.scores import segmentation


def lost(record: Record, classes: Sequence[int], steps: int) -> np.ndarray:
    """IoU when learnt minus IoU after each later step; positive is worse.

    Args:
        record: of a run on a stream of classes.
        classes: labels of the rows.
        steps: how many columns.

    Returns:
        (len(classes), steps) float64; 0 at the step that brings a class, NaN before it and where an IoU is unknown.
    """
    result = np.full((len(classes), steps), np.nan)
    row = {label: index for index, label in enumerate(classes)}
    learnt: dict[int, float] = {}
    for k, step in enumerate(record.steps[:steps]):
        evaluation = segmentation(step)
        if evaluation is None:
            continue
        iou = dict(enumerate(evaluation.metrics["iou"]))
        learnt |= {label: iou[label] for label in step.new_classes if iou.get(label) is not None}
        for label, then in learnt.items():
            if label in row and iou.get(label) is not None:
                result[row[label], k] = then - iou[label]
    return result


def mean(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over runs of what is known in each cell; NaN where nothing is."""
    stack = np.stack(matrices)
    known = ~np.isnan(stack)
    count = known.sum(0)
    return np.divide(np.where(known, stack, 0).sum(0), count, out=np.full(count.shape, np.nan), where=count > 0)
