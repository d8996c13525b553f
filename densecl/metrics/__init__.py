"""Metrics. The functions of confusion matrices (`iou`) load no torch, so tables are made without it."""

from typing import TYPE_CHECKING, Any

from densecl.metrics.iou import (
    fold_unseen,
    foreground_mean,
    forgetting,
    harmonic_mean,
    iou_from_confusion,
    step_metrics,
    unseen_under,
)

if TYPE_CHECKING:
    from densecl.metrics.confusion import ConfusionMatrix

__all__ = [
    "ConfusionMatrix",
    "fold_unseen",
    "foreground_mean",
    "forgetting",
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
