"""The tasks of a sequence, from their settings."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from densecl.data import styles
from densecl.data.dataset import DenseDataset
from densecl.models.weights import weights_place
from densecl.seeding import derive
from densecl.settings.recipe import RunSettings, TaskSettings
from densecl.tasks import Task, segmentation


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


def build_task(task: TaskSettings, settings: RunSettings, train: DenseDataset, networks: dict[Any, Any]) -> Task:
    """A task from its settings; style tasks of equal loss networks share one, kept in `networks`.

    Raises:
        DataError: a style image or the weights of a loss network cannot be read.
    """
    if task.kind == "segmentation":
        return segmentation(task.name, classes=len(train.class_names), has_background=train.has_background)
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


def bare_task(settings: TaskSettings, class_names: Sequence[str]) -> Task:
    """A task as far as outputs and pictures go: without critic, style image and loss network."""
    from densecl.tasks.autoencoding import autoencoding
    from densecl.tasks.colorization import colorization

    if settings.kind == "segmentation":
        background = list(class_names[:1]) != ["other"]
        return segmentation(settings.name, classes=len(class_names) - 1, has_background=background)
    if settings.kind == "colorization":
        return colorization(settings.name, scale=settings.scale)
    return replace(autoencoding(settings.name), kind=settings.kind)  # RGB from RGB in the same unit


def _digest(weights: str | None) -> str | None:
    """A weights file by its content."""
    if weights in (None, "torchvision") and (place := weights_place("vgg16")).is_file():
        weights = str(place)  # put there by hand, used for the download
    if weights is not None and Path(weights).is_file():
        return hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return weights
