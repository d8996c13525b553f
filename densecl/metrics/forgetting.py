"""How much of what was learnt is lost. NumPy only."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def forgetting(
    iou_when_learnt: Mapping[int, float], iou_now: Sequence[float] | np.ndarray, previous_labels: Iterable[int]
) -> float | None:
    """IoU right after a class was learnt minus IoU now, mean over classes of earlier steps; positive is worse.

    Args:
        iou_when_learnt: label -> IoU at the end of the step that brought it.
        iou_now: (n,) IoU per label after the present step.
        previous_labels: labels of earlier steps; background (0) is left out.

    Returns:
        The mean over classes whose IoU is known then and now (recorded, not None, not NaN); None when there are none.
    """
    losses = []
    for label in previous_labels:
        then = iou_when_learnt.get(label)
        now = iou_now[label]
        if label != 0 and then is not None and now is not None and not (np.isnan(then) or np.isnan(now)):
            losses.append(float(then) - float(now))
    return float(np.mean(losses)) if losses else None
