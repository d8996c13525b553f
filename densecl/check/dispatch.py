"""Checks by what a name means: a method, or a data set, backbone or task of one's own."""

from pathlib import Path

from densecl.settings.catalogue import load_class
from densecl.settings.grammar import parse


def check(text: str, data: Path | None = None, catalogue: Path | None = None) -> tuple[list[str], str]:
    """Find what is wrong with something that a run can name: findings in words, and a list of what was tried.

    Args:
        text: such as `mine.py:Mine(weight=3)`, or the name of a strategy, plugin or data set.
        data: the folder of a data set.
        catalogue: a folder with recipes of one's own.
    """
    from densecl.check.data_set import check_data_set, names_data_set
    from densecl.models.network import Backbone
    from densecl.settings.task_recipe import kind_class
    from densecl.tasks import Task

    call, *others = parse(text)
    cls = load_class(call.name) if ":" in call.name and not others else object
    if issubclass(cls, Backbone):
        from densecl.check.backbone import check_backbone_class

        return check_backbone_class(cls, call.arguments), "maps of all sizes, gradients, growing heads, state"
    if issubclass(cls, Task):
        from densecl.check.task import check_task

        cls = kind_class(call.name) if hasattr(cls, "kind") else cls  # refused where a setting is a key of every task
        return check_task(cls, call.arguments), "targets, losses, metrics, void pixels, picture, state"
    if names_data_set(text):
        from densecl.data import data_set

        return check_data_set(data_set(text), data, **call.arguments), "files, images, masks, labels, classes"
    from densecl.check.check import check_method

    return check_method(text, catalogue), "hooks, outputs, losses, growing heads, state"
