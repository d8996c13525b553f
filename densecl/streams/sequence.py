"""Sequences of tasks: each step has a task, images and a head of its own."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densecl.data.dataset import DenseDataset
from densecl.data.labels import lookup_table
from densecl.data.transforms import Compose
from densecl.errors import SettingError
from densecl.streams.containers import DenseExperience, Normalisation, Scenario, StreamInfo, hold_out, normalisation
from densecl.streams.samples import PlainSamples, StepImages, TestSamples, TrainingSamples, Transform
from densecl.tasks import Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from avalanche.benchmarks.utils.data import make_avalanche_dataset

IDENTITY = Compose([])


@dataclass(frozen=True)
class TaskSource:
    """A task and where its images come from.

    Attributes:
        task: what is learnt; a segmentation task says how many classes it has.
        train, test: readers; of tasks that do not look at masks, without them.
        augment: random transform of training samples. plain: a fixed one of the same output size.
        evaluate: transform of evaluated samples.
    """

    task: Task
    train: DenseDataset
    test: DenseDataset
    augment: Transform | None = None
    plain: Transform | None = None
    evaluate: Transform | None = None


def task_sequence(
    sources: Sequence[TaskSource],
    *,
    validation: float = 0.0,
    validation_seed: int = 0,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    seed: int = 0,
) -> Scenario:
    """Tasks learnt one after another, each on all images of its source.

    Labels are those of the data set, in every task from 0; all classes of a task arrive at its step.

    Args:
        sources: the tasks in their order.
        validation: share of each task's training images that is held out and evaluated instead of its test images.
        validation_seed: which images those are.
        mean: of RGB in 0..1.
        std: of RGB in 0..1.
        seed: of augmentation.

    Raises:
        SettingError: no task, two of one name, a name that cannot be one, or a task that does not know its outputs.
    """
    check_names([source.task.name for source in sources])
    normalised = normalisation(mean, std)
    parts = [_Part(source, *hold_out(len(source.train), validation, validation_seed)) for source in sources]
    labels = tuple(part.labels for part in parts)
    training = TrainingSamples(
        [source.train for source in sources],
        [part.images for part in parts],
        [source.augment or IDENTITY for source in sources],
        seed,
    )
    tests = [part.tests for part in parts]
    return Scenario(
        [part.experience(k, normalised) for k, part in enumerate(parts)],
        [part.test_experience(k, normalised) for k, part in enumerate(parts)],
        class_names=(),
        settings=StreamInfo(labels, labels, "tasks", "tasks", (0,) * len(parts)),
        training=training,
        tests=tests,
        normalisation=normalised,
        fingerprint=_fingerprint(parts),
        kind="tasks",
        names=[part.names for part in parts],
    )


def check_names(names: Sequence[str]) -> None:
    """Refuse names that cannot name the tasks of a sequence.

    Raises:
        SettingError: see there.
    """
    if not names:
        raise SettingError("the sequence has no task", "name one or more")
    for name in names:
        if not name or not all(c.isalnum() or c in "-_" for c in name):
            raise SettingError(f"'{name}' cannot name a task", "use letters, digits, - and _")
        if names.count(name) > 1:
            raise SettingError(f"two tasks are named '{name}'", "give each a name of its own")


class _Part:
    """One task with the images it is trained and tested on."""

    def __init__(self, source: TaskSource, kept: np.ndarray, held: np.ndarray):
        task = source.task
        if task.outputs is None:
            raise SettingError(f"task '{task.name}' does not say how many outputs it has", "name its classes")
        self.source, self.task = source, task
        self.names: tuple[str, ...] = ()
        if task.kind == "segmentation":
            self.names = ("background" if task.has_background else "other", *source.train.class_names)
            if len(self.names) != task.outputs:
                raise SettingError(
                    f"task '{task.name}' has {task.outputs} outputs, and {source.train.name} has "
                    f"{len(self.names) - 1} classes and background"
                )
        self.labels = tuple(range(1, len(self.names)))
        classes = range(len(source.train.class_names) + 1)
        table = lookup_table({label: label for label in classes}, 255) if task.needs_masks else _background()
        self.images = StepImages(kept, table)
        reader, indices = (source.train, held) if len(held) else (source.test, np.arange(len(source.test)))
        self.tests = TestSamples(reader, indices, table, source.evaluate)

    def experience(self, step: int, normalised: Normalisation) -> DenseExperience:
        """The training data as a step."""
        return self._experience(step, self.source.train, self.images, self.source.plain, normalised)

    def test_experience(self, step: int, normalised: Normalisation) -> DenseExperience:
        """The test data as a step."""
        images = StepImages(self.tests.indices, self.tests.table)
        return self._experience(step, self.tests.reader, images, self.source.evaluate, normalised)

    def _experience(
        self, step: int, reader: Any, images: StepImages, transform: Transform | None, normalised: Normalisation
    ) -> DenseExperience:
        samples = PlainSamples(reader, images, transform or IDENTITY, *normalised, task=self.task)
        dataset = make_avalanche_dataset(samples)  # type: ignore[arg-type]
        unknown = np.zeros((len(images.indices), 256), dtype=bool)  # labels of tasks are not balanced, so not scanned
        return DenseExperience(dataset, step, self.task, self.labels, self.labels, images, unknown)


def _background() -> Tensor:
    return torch.zeros(256, dtype=torch.uint8)


def _fingerprint(parts: Sequence[_Part]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        settings = [part.task.name, part.task.kind, part.task.settings]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for reader, indices in ((part.source.train, part.images.indices), (part.tests.reader, part.tests.indices)):
            digest.update("\n".join(Path(reader.ids[i]).name for i in indices).encode())  # type: ignore[attr-defined]
        digest.update(part.images.table.numpy().tobytes())
    return digest.hexdigest()[:16]
