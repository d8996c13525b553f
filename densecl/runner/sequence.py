"""From a plan to a sequence of tasks: which methods can learn it, its readers, tasks and transforms."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from densecl.data import styles, transforms
from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.errors import SettingError
from densecl.models.weights import weights_place
from densecl.runner.methods import Method
from densecl.seeding import derive
from densecl.settings.recipe import EvaluationSettings, RunSettings, TaskSettings
from densecl.streams.samples import Transform
from densecl.streams.sequence import TaskSource, check_names
from densecl.tasks import Task, segmentation


def check_kinds(method: Method, settings: RunSettings) -> None:
    """Refuse a method on a stream or on tasks that it cannot learn, before any data is read.

    Raises:
        SettingError: naming method and task, and why.
    """
    tasks, benchmark = settings.stream.tasks, settings.benchmark
    strategy: Any = method.strategy.cls
    for task in tasks:
        if task.kind not in strategy.kinds:
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
    """The tasks with style images and weights files by their content, not by their path.

    Raises:
        DataError: a style image is missing or unreadable.
    """
    found = []
    for task in settings.stream.tasks:
        content = task.model_dump(mode="json")
        if task.style is not None:
            pixels = styles.style_image(task.style, settings.data.root, task.style_size)
            content["style"] = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
            content["loss_weights"] = _digest(loss_weights(task, settings))
        found.append(content)
    return found


def loss_weights(task: TaskSettings, settings: RunSettings) -> str | None:
    """What a style task's loss network is filled with."""
    return None if task.loss_network == "random" else task.loss_weights or settings.stream.loss_weights


def sources(
    settings: RunSettings,
    readers: tuple[tuple[DenseDataset, DenseDataset], ...],
    progress: Callable[[int, int], None] | None = None,
) -> list[TaskSource]:
    """The tasks of a run with their readers and transforms; masks that are looked at have been scanned.

    Raises:
        DataError: a mask, a style image or the weights of a loss network cannot be read.
    """
    found, networks = [], {}
    for task, (train, test) in zip(settings.stream.tasks, readers, strict=True):
        if task.kind == "segmentation":
            for reader in (train, test):
                class_index(reader, progress=progress)
            made: Task = segmentation(task.name, classes=len(train.class_names), has_background=train.has_background)
        else:
            train, test = train.without_masks(), test.without_masks()
            made = _image_task(task, settings, networks)
        crop = settings.training.crop if task.crop is None else task.crop
        size = None if crop == "full" else crop
        training, evaluation = settings.training, settings.evaluation
        if task.size is not None:
            evaluation = evaluation.model_copy(update={"size": task.size})
        found.append(
            TaskSource(
                made,
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


def _image_task(task: TaskSettings, settings: RunSettings, networks: dict[Any, Any]) -> Task:
    """A task whose outputs are values; style tasks of equal loss networks share one."""
    if task.kind == "colorization":
        from densecl.tasks.colorization import colorization

        return colorization(task.name, scale=task.scale)
    if task.kind == "autoencoding":
        from densecl.models.patchgan import initialised
        from densecl.tasks.autoencoding import autoencoding

        critic = initialised(derive(settings.seed, "critic", task.name)) if task.loss == "adversarial" else None
        return autoencoding(task.name, loss=task.loss, critic=critic)
    import torch

    from densecl.models.loss_network import build_loss_network
    from densecl.tasks.style_transfer import style_transfer

    assert task.style is not None
    pixels = styles.style_image(task.style, settings.data.root, task.style_size)
    key = (task.loss_network, loss_weights(task, settings), task.loss_seed)
    if key not in networks:
        networks[key] = build_loss_network(*key)
    return style_transfer(
        task.name,
        torch.from_numpy(pixels).permute(2, 0, 1).contiguous(),
        networks[key],
        content_weight=task.content_weight,
        style_weight=task.style_weight,
        normalised=task.normalised,
    )


def _digest(weights: str | None) -> str | None:
    """A weights file by its content."""
    if weights in (None, "torchvision") and (place := weights_place("vgg16")).is_file():
        weights = str(place)  # put there by hand, used for the download
    if weights is not None and Path(weights).is_file():
        return hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return weights
