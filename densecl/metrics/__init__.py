"""Metrics. The NumPy part (grouping, forgetting) loads no torch, so tables are made without it."""

from typing import TYPE_CHECKING, Any

from densecl.metrics.forgetting import forgetting
from densecl.metrics.grouping import (
    GROUPINGS,
    Grouping,
    fold_unseen,
    foreground_mean,
    grouping,
    harmonic_mean,
    iou_from_confusion,
    step_metrics,
    unseen_under,
)

if TYPE_CHECKING:
    from densecl.metrics.confusion import ConfusionMatrix

__all__ = [
    "GROUPINGS",
    "ConfusionMatrix",
    "Grouping",
    "fold_unseen",
    "foreground_mean",
    "forgetting",
    "grouping",
    "harmonic_mean",
    "iou_from_confusion",
    "step_metrics",
    "unseen_under",
]


def __getattr__(name: str) -> Any:
    if name == "ConfusionMatrix":
        from densecl.metrics.confusion import ConfusionMatrix

        return ConfusionMatrix
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
