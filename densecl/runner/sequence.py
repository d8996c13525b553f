"""From a plan to a sequence of tasks: which methods can learn it, its readers, tasks and transforms."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from densecl.data import transforms
from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.errors import SettingError
from densecl.runner.methods import Method
from densecl.settings.recipe import EvaluationSettings, RunSettings
from densecl.streams.samples import Transform
from densecl.streams.sequence import TaskSource, check_names
from densecl.tasks import KINDS, Context


def check_kinds(method: Method, settings: RunSettings) -> None:
    """Refuse a method on a stream or on tasks that it cannot learn, before any data is read.

    Raises:
        SettingError: naming method and task, and why.
    """
    tasks, benchmark = settings.stream.tasks, settings.benchmark
    strategy: Any = method.strategy.cls
    for task in tasks:
        if task.cls.kind not in strategy.kinds and not strategy.kinds.issuperset(KINDS):
            kinds = ", ".join(sorted(strategy.kinds))
            raise SettingError(
                f"{method.strategy.name} cannot learn {task.kind} ('{task.name}')", f"it learns: {kinds}"
            )
    kind = "tasks" if settings.stream.kind == "tasks" else "classes"
    if kind == "tasks":
        check_names([task.name for task in tasks])
    if method.told and settings.stream.kind == "domain":
        raise SettingError(
            f"{method.strategy.name} learns tasks, and all steps of {benchmark} are one task in images of other kinds",
            "use a stream of tasks or of classes",
        )
    for part in (method.strategy, *method.plugins):
        streams = getattr(part.cls, "streams", {"classes"})
        # steps of a method that is told them are tasks: heads by task are what a plugin must know
        if kind in streams and not (method.told and part is not method.strategy and "tasks" not in streams):
            continue
        if kind == "tasks":
            raise SettingError(
                f"{part.name} learns classes that arrive over time, and {benchmark} is a sequence of tasks",
                "see `densecl list strategies` for those of task sequences, such as piggyback",
            )
        if part is not method.strategy and kind in streams:
            raise SettingError(
                f"{part.name} cannot be joined to {method.strategy.name}, whose steps have heads of their own",
                "it needs a strategy with one head for all classes, such as finetune",
            )
        raise SettingError(
            f"{part.name} learns a sequence of tasks, and {benchmark} is one task whose classes arrive over time",
            "use a benchmark of several tasks, such as shapes-3tasks",
        )


def tasks_by_content(settings: RunSettings) -> list[dict[str, Any]]:
    """The tasks with files and a user's classes by what they hold, not by their path.

    Raises:
        DataError: a file is missing or unreadable, such as a style image.
    """
    context = Context(root=settings.data.root, seed=settings.seed, weights=settings.stream.loss_weights)
    return [task.by_content(context) for task in settings.stream.tasks]


def sources(
    settings: RunSettings,
    readers: tuple[tuple[DenseDataset, DenseDataset], ...],
    progress: Callable[[int, int], None] | None = None,
) -> list[TaskSource]:
    """The tasks of a run with their readers and transforms; masks that are looked at have been scanned.

    Raises:
        DataError: a mask, a style image or the weights of a loss network cannot be read.
    """
    found = []
    common = Context(root=settings.data.root, seed=settings.seed, weights=settings.stream.loss_weights)
    for task, (train, test) in zip(settings.stream.tasks, readers, strict=True):
        if task.cls.needs_masks:
            for reader in (train, test):
                class_index(reader, progress=progress)
            context = replace(common, class_names=train.class_names, has_background=train.has_background)
        else:
            train, test, context = train.without_masks(), test.without_masks(), common
        crop = settings.training.crop if task.crop is None else task.crop
        size = None if crop == "full" else crop
        training, evaluation = settings.training, settings.evaluation
        if task.size is not None:
            evaluation = evaluation.model_copy(update={"size": task.size})
        found.append(
            TaskSource(
                task.cls.build(task.name, task.values, context),
                train,
                test,
                augment=transforms.augmentation(training.augmentation, size, training.scale),
                plain=None if size is None else transforms.ResizeCenterCrop(size),
                evaluate=evaluation_transform(evaluation),
            )
        )
    return found


def evaluation_transform(settings: EvaluationSettings) -> Transform | None:
    """Shorter side to `size` and centre crop, or None for whole images."""
    return None if settings.size == "full" else transforms.ResizeCenterCrop(settings.size)
