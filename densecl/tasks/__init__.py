"""Tasks: what the network must output at a step, one file a kind."""

from densecl.tasks.base import Task
from densecl.tasks.segmentation import segmentation

__all__ = ["Task", "segmentation"]
