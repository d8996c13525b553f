"""Metrics. The functions of confusion matrices (`iou`) load no torch, so tables are made without it."""

import importlib
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
    from densecl.metrics.geometry import depth_errors, normal_angles

__all__ = [
    "ConfusionMatrix",
    "depth_errors",
    "fold_unseen",
    "foreground_mean",
    "forgetting",
    "harmonic_mean",
    "iou_from_confusion",
    "normal_angles",
    "step_metrics",
    "unseen_under",
]


_WITH_TORCH = {"ConfusionMatrix": "confusion", "depth_errors": "geometry", "normal_angles": "geometry"}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
