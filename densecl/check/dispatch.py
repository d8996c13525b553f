"""Checks by what a name means: a method, or a data set, backbone or task of one's own."""

from pathlib import Path

from densecl.data import entries
from densecl.settings.catalogue import check_names, load_class
from densecl.settings.grammar import parse


def check(text: str, data: Path | None = None, catalogue: Path | None = None) -> tuple[list[str], str]:
    """Find what is wrong with something that a run can name: findings in words, and a list of what was tried."""
    call, *others = parse(text)
    if not is_data_set(call.name):
        check_names(strategy=text, extra=catalogue)
    from densecl.models.network import Backbone
    from densecl.settings.task_recipe import kind_class
    from densecl.tasks import Task

    cls = load_class(call.name) if ":" in call.name and not others else object
    if issubclass(cls, Backbone):
        from densecl.check.backbone import check_backbone_class

        return check_backbone_class(cls, call.arguments), "maps of all sizes, gradients, growing heads, state"
    if issubclass(cls, Task):
        from densecl.check.task import check_task

        cls = kind_class(call.name) if hasattr(cls, "kind") else cls  # refused where a setting is a key of every task
        return check_task(cls, call.arguments), "targets, losses, metrics, void pixels, picture, state"
    if is_data_set(call.name):
        from densecl.check.data_set import check_data_set
        from densecl.data import data_set

        return check_data_set(data_set(text), data, **call.arguments), "files, images, masks, labels, classes"
    from densecl.check.check import check_method

    findings = check_method(text, catalogue)
    works = "hooks, outputs, losses, growing heads, state, going on after a stop"
    if not findings and any(":" in call.name for call in (call, *others)):
        from densecl.check.plain import prove

        if plain := prove(text):
            works += f"; the first step of {' and '.join(plain)} is plain: runs share it with other methods"
    return findings, works


def is_data_set(name: str) -> bool:
    """True for the name of a packaged data set, and for a user's class `file.py:Class` that is one."""
    if ":" not in name:
        return any(name in (entry.name, *entry.aliases) for entry in entries())
    from densecl.data.dataset import DenseDataset

    return issubclass(load_class(name), DenseDataset)
