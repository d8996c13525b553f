"""From a confusion matrix to IoU by class, means over groups of classes, and forgetting. NumPy only."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from densecl.errors import UnknownNameError

Unseen = Literal["background", "ignore"]
Absent = Literal["zero", "skip"]  # IoU of a class that is predicted and nowhere in the truth
# The half of a label preset that acts in evaluation: what pixels of classes not learnt yet count as.
UNSEEN: dict[str, Unseen] = {"mib2020": "ignore", "plop2021": "background", "strict": "ignore"}


def unseen_under(labels: str) -> Unseen:
    """The way in which a label preset counts pixels of unseen classes; UnknownNameError for no preset."""
    if labels not in UNSEEN:
        raise UnknownNameError("label preset", labels, UNSEEN)
    return UNSEEN[labels]


def harmonic_mean(base: float | None, added: float | None) -> float | None:
    """2 / (1 / base + 1 / added); 0 when one is 0, None when one is unknown."""
    if base is None or added is None:
        return None
    return 2 * base * added / (base + added) if base + added else 0.0


def iou_from_confusion(matrix: np.ndarray, absent: Absent = "zero") -> np.ndarray:
    """(n,) float64: IoU per class of counts (n, n), rows the truth; NaN where truth and prediction lack the class.

    With `absent="skip"` it is NaN too where the truth alone lacks it: MiB and PLOP leave such a class out of all means.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    hits = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hits
    known = union if absent == "zero" else counts.sum(1)
    return np.divide(hits, union, out=np.full(len(counts), np.nan), where=known > 0)


def fold_unseen(matrix: np.ndarray, seen: int, unseen: Unseen) -> np.ndarray:
    """A copy of (n, n) counts whose rows of unseen labels, those above `seen`, are zero.

    "background" counts their pixels as true background (PLOP and most since), "ignore" drops them (MiB).
    """
    if unseen not in ("background", "ignore"):
        raise ValueError(f"unseen is '{unseen}', not 'background' or 'ignore'")
    folded = np.array(matrix)
    if unseen == "background":
        folded[0] += folded[seen + 1 :].sum(0)
    folded[seen + 1 :] = 0
    return folded


def foreground_mean(
    iou: Sequence[float] | np.ndarray, labels: Iterable[int], *, background: bool = False
) -> float | None:
    """Mean IoU over `labels` without absent classes (NaN), and without label 0 unless `background`; None for none."""
    return _mean(iou, [label for label in labels if label != 0 or background])


def step_metrics(
    matrix: np.ndarray,
    steps: Sequence[Sequence[int]],
    step: int,
    *,
    has_background: bool,
    unseen: Unseen,
    absent: Absent = "zero",
) -> dict[str, float | None]:
    """The mean IoUs printed for one step.

    Args:
        matrix: (n, n) counts on the whole test stream, n > every label of `steps`.
        steps: labels of each step, in order of arrival: 1, 2, ... (background excluded).
        step: index of the step just learnt; labels of later steps are unseen.
        has_background: label 0 is a class; then it counts in all, base and previous (the field's majority). Without,
            it counts nowhere, and `unseen="background"` still hands it the unseen pixels.
        unseen: see `fold_unseen`.
        absent: see `iou_from_confusion`.

    Returns:
        `all` seen classes; `base` = step 0; `added` = later seen ones; `previous` = steps before `step`; `current` =
        `step` itself. None where a group is empty or all its classes are absent from truth and prediction.
    """
    seen = [label for labels in steps[: step + 1] for label in labels]
    iou = iou_from_confusion(fold_unseen(matrix, max(seen, default=0), unseen), absent)
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


def forgetting(
    iou_when_learnt: Mapping[int, float], iou_now: Sequence[float | None] | np.ndarray, previous_labels: Iterable[int]
) -> float | None:
    """IoU right after a class was learnt minus IoU now, mean over classes of earlier steps; positive is worse.

    Classes whose IoU is not known then and now (recorded, not None, not NaN) are left out, and so is background; None
    when no class is left. `iou_now` has a value for each label.
    """
    losses = []
    for label in previous_labels:
        then = iou_when_learnt.get(label)
        now = iou_now[label]
        if label != 0 and then is not None and now is not None and not (math.isnan(then) or math.isnan(now)):
            losses.append(float(then) - float(now))
    return float(np.mean(losses)) if losses else None


def class_metrics(
    matrix: np.ndarray,
    groups: Sequence[Sequence[int]],
    step: int,
    before: Sequence[Sequence[float | None]] = (),
    *,
    joint: bool = False,
    has_background: bool,
    labels: str,
    absent: Absent = "zero",
) -> dict[str, Any]:
    """Scores of a class-incremental stream by name, from its confusion matrix over all labels.

    `groups` are the labels of each step; `before` has the IoU by label after each earlier step, as far as it is known;
    `labels` is the label preset. Of joint training all groups are learnt at step 0.
    """
    unseen, learnt = unseen_under(labels), groups if joint else groups[: step + 1]
    seen = sum(map(len, learnt))
    iou = iou_from_confusion(fold_unseen(matrix, seen, unseen), absent)
    when_learnt = {
        label: value
        for group, known in zip(groups[:step], before, strict=False)
        for label in group
        if (value := known[label]) is not None
    }
    previous = [label for group in groups[:step] for label in group]
    return {
        "miou": step_metrics(
            matrix, groups, len(learnt) - 1, has_background=has_background, unseen=unseen, absent=absent
        ),
        "iou": [None if label > seen or math.isnan(value) else value for label, value in enumerate(iou.tolist())],
        "forgetting": forgetting(when_learnt, iou, previous) if previous else None,
    }


def _mean(iou: Sequence[float] | np.ndarray, labels: Sequence[int]) -> float | None:
    """Mean over the labels that are not NaN; None when none is left."""
    values = np.asarray(iou, dtype=np.float64)[list(labels)]
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
