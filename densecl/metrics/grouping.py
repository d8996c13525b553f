"""From a confusion matrix to the columns papers print: means of IoU over groups of classes. NumPy only."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

Unseen = Literal["background", "ignore"]


def iou_from_confusion(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union per class.

    Args:
        matrix: (n, n) counts, rows the truth, columns the prediction.

    Returns:
        (n,) float64, NaN where truth and prediction both lack the class.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    hits = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(counts), np.nan), where=union > 0)


def fold_unseen(matrix: np.ndarray, seen: int, unseen: Unseen) -> np.ndarray:
    """What an intermediate test does with pixels of classes that have not been shown yet.

    Args:
        matrix: (n, n) counts with every true class as a row; never changed.
        seen: last label shown so far; labels seen+1..n-1 are unseen.
        unseen: "background" counts their pixels as true background (PLOP and most since), "ignore" drops them (MiB).

    Returns:
        (n, n) copy whose rows of unseen labels are zero.

    Raises:
        ValueError: `unseen` is neither.
    """
    if unseen not in ("background", "ignore"):
        raise ValueError(f"unseen is '{unseen}', not 'background' or 'ignore'")
    folded = np.array(matrix)
    if unseen == "background":
        folded[0] += folded[seen + 1 :].sum(0)
    folded[seen + 1 :] = 0
    return folded


def foreground_mean(iou: Sequence[float] | np.ndarray, labels: Iterable[int]) -> float | None:
    """Mean IoU over `labels` without background (label 0) and without absent classes (NaN); None when none is left."""
    return _mean(iou, [label for label in labels if label != 0])


def step_metrics(
    matrix: np.ndarray,
    steps: Sequence[Sequence[int]],
    step: int,
    *,
    has_background: bool,
    unseen: Unseen,
) -> dict[str, float | None]:
    """The mean IoUs printed for one step.

    Args:
        matrix: (n, n) counts on the whole test stream, n > every label of `steps`.
        steps: labels of each step, in order of arrival: 1, 2, ... (background excluded).
        step: index of the step just learnt; labels of later steps are unseen.
        has_background: label 0 is a class; then it counts in all, base and previous (the field's majority). Without,
            it counts nowhere, and `unseen="background"` still hands it the unseen pixels.
        unseen: see `fold_unseen`.

    Returns:
        `all` seen classes; `base` = step 0; `added` = later seen ones; `previous` = steps before `step`; `current` =
        `step` itself. None where a group is empty or all its classes are absent from truth and prediction.
    """
    seen = [label for labels in steps[: step + 1] for label in labels]
    iou = iou_from_confusion(fold_unseen(matrix, max(seen, default=0), unseen))
    background = [0] if has_background else []
    previous = [label for labels in steps[:step] for label in labels]
    base = list(steps[0])
    return {
        "all": _mean(iou, background + seen),
        "base": _mean(iou, background + base),
        "added": _mean(iou, seen[len(base) :]),
        "previous": _mean(iou, background + previous) if previous else None,
        "current": _mean(iou, steps[step]),
    }


def _mean(iou: Sequence[float] | np.ndarray, labels: Sequence[int]) -> float | None:
    """Mean over the labels that are not NaN; None when none is left."""
    values = np.asarray(iou, dtype=np.float64)[list(labels)]
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
