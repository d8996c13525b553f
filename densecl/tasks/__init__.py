"""Tasks: what the network must output at a step, one file a kind, found by its name. Imports no torch."""

from densecl.settings.task_recipe import KINDS
from densecl.tasks.base import Context, Metrics, Picture, Prepared, Task
from densecl.tasks.segmentation import Segmentation

__all__ = ["KINDS", "Context", "Metrics", "Picture", "Prepared", "Segmentation", "Task"]
