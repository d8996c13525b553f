"""Semantic segmentation: one output a class and one for background; mean intersection over union."""

from densecl.tasks.base import Task


def segmentation(name: str, *, has_background: bool = True) -> Task:
    """The task of labelling each pixel with a class."""
    return Task(name=name, kind="segmentation", primary="miou", has_background=has_background)
