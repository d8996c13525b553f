"""The tasks of a sequence, from their settings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.settings.recipe import RunSettings
from densecl.tasks import Context, Task


def tasks_by_content(settings: RunSettings) -> list[dict[str, Any]]:
    """The tasks with files and a user's classes by what they hold, not by their path.

    Raises:
        DataError: a file is missing or unreadable, such as a style image.
    """
    context = Context(root=settings.data.root, seed=settings.seed, weights=settings.stream.loss_weights)
    return [task.by_content(context) for task in settings.stream.tasks]


def build_tasks(
    settings: RunSettings,
    readers: tuple[tuple[DenseDataset, DenseDataset], ...],
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[Task, DenseDataset, DenseDataset]]:
    """Each task with its training and test images; masks that are looked at have been scanned.

    Raises:
        DataError: a mask, a style image or the weights of a loss network cannot be read.
    """
    tasks = []
    common = Context(root=settings.data.root, seed=settings.seed, weights=settings.stream.loss_weights)
    for task, (train, test) in zip(settings.stream.tasks, readers, strict=True):
        if task.cls.needs_masks:
            for reader in (train, test):
                class_index(reader, progress=progress)
            context = replace(common, class_names=train.class_names, has_background=train.has_background)
        else:
            train, test, context = train.without_masks(), test.without_masks(), common
        tasks.append((task.cls.build(task.name, task.values, context), train, test))
    return tasks
