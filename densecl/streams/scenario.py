"""Scenarios: streams with readers, which runs train and test on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.data.labels import lookup_table
from densecl.errors import SettingError
from densecl.streams import protocol
from densecl.streams.experiences import (
    AS_THEY_ARE,
    Experience,
    Normalisation,
    Scenario,
    Transforms,
    assembled,
    normalisation,
)
from densecl.streams.samples import StepImages, TestSamples
from densecl.streams.stream import Stream, class_stream, labels_of_groups, task_stream
from densecl.tasks import Task

__all__ = [
    "Experience",
    "Normalisation",
    "Scenario",
    "TaskSource",
    "Transforms",
    "class_incremental",
    "domain_incremental",
    "task_sequence",
]

VOID = 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in 0..1


def hold_out(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted (kept, held-out) positions of n training images."""
    shuffled = np.random.default_rng([seed, 4711]).permutation(n)
    count = round(share * n)
    if share and not 0 < count < n:
        count = 1
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])


def class_incremental(
    train: DenseDataset,
    test: DenseDataset,
    steps: protocol.Steps,
    *,
    setting: str = "overlapped",
    partition_seed: int = 0,
    labels: str = "plop2021",
    joint: bool = False,
    by_task: bool = False,
    domains: Sequence[np.ndarray] | None = None,
    validation: float = 0.0,
    validation_seed: int = 0,
    transforms: Transforms = AS_THEY_ARE,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    seed: int = 0,
    presence: np.ndarray | None = None,
    test_presence: np.ndarray | None = None,
) -> Scenario:
    """Class-incremental segmentation: each step labels its own classes only.

    Args:
        train: reader of the training images.
        test: reader of the test images.
        steps: class ids of each step, background excluded (`protocol.steps`).
        setting: one of `protocol.SETTINGS`.
        partition_seed: of the ties of `partitioned`.
        labels: one of `protocol.LABELS`, see `protocol.step_table` and `metrics.iou.UNSEEN`.
        joint: one step with all labels instead; groupings keep `steps`.
        by_task: a head for each step, and the method is told the step. A step's test images are then those that hold
            one of its classes; pixels of other steps' classes are void there, so an image is judged once for each step
            that it holds classes of, and its background as often.
        domains: see `domain_incremental`.
        validation: share of the training images that is held out and evaluated instead of `test`.
        validation_seed: which images those are.
        transforms: of samples.
        mean: of RGB in 0..1.
        std: of RGB in 0..1.
        seed: of augmentation.
        presence: (n, 256) bool, the ids in each training mask; read from the masks (and cached) when None.
        test_presence: the same of the test masks; looked at for `by_task` alone.

    Raises:
        SettingError: as `protocol.select`; a step of `by_task` without a test image. DataError: as the readers.
    """
    presence = class_index(train) if presence is None else presence
    kept, held = hold_out(len(train), validation, validation_seed)
    trained: protocol.Steps = (tuple(c for step in steps for c in step),) if joint else steps
    if domains is None:
        # joint training takes all images
        chosen = protocol.select(presence[kept], trained, "overlapped" if joint else setting, seed=partition_seed)
        later = protocol.later_classes(presence[kept], trained, chosen)
        chosen = [kept[indices] for indices in chosen]
        tables = [protocol.step_table(trained, k, setting, labels) for k in range(len(trained))]
    else:
        chosen, setting, later = _of_domains(domains, kept, joint), "domain", (0,) * len(trained)
        tables = [protocol.step_table((steps[0],), 0, "overlapped", labels)] * len(trained)
    images = [StepImages(own, torch.from_numpy(table)) for own, table in zip(chosen, tables, strict=True)]
    first = "background" if train.has_background else "other"
    stream = class_stream(
        train.name,
        labels_of_groups(steps),
        (first, *(train.class_names[c - 1] for c in protocol.arrival(steps))),
        has_background=train.has_background,
        setting=setting,
        labels=labels,
        joint=joint,
        by_task=by_task,
    )
    reader, indices = (train, held) if validation else (test, np.arange(len(test)))
    tests = [TestSamples(reader, indices, torch.from_numpy(protocol.test_table(steps)), transforms.evaluate)]
    fingerprint = _fingerprint([*((train, own) for own in images), (reader, StepImages(indices, tests[0].table))])
    present = [_labels_present(presence[own.indices], own.table.numpy()) for own in images]
    if by_task:
        if validation or test_presence is None:
            test_presence = presence if validation else class_index(test)
        images, present, tests = _told(stream, images, present, tests[0], test_presence)
    n = len(images)
    return assembled(
        stream,
        [train] * n,
        images,
        present,
        tests,
        [transforms] * n,
        normalisation(mean, std),
        seed,
        fingerprint,
        later,
    )


def domain_incremental(
    train: DenseDataset, test: DenseDataset, domains: Sequence[np.ndarray], **options: Any
) -> Scenario:
    """Domain-incremental segmentation: all classes at every step, in images of another kind (PLOP's Cityscapes).

    Step 0 brings all classes; later steps bring none, so heads do not grow and nothing hides in background.

    Args:
        train: reader of the training images.
        test: reader of the test images, the same at every step.
        domains: sorted indices into `train` of each step, such as `cityscapes.domains` gives.
        **options: see `class_incremental`; images are held out of all domains alike.

    Raises:
        SettingError: a step without images, or an image of two steps. DataError: as the readers.
    """
    steps: protocol.Steps = (tuple(range(1, 1 + len(train.class_names))), *(() for _ in domains[1:]))
    return class_incremental(train, test, steps, domains=domains, **options)


def _of_domains(domains: Sequence[np.ndarray], kept: np.ndarray, joint: bool) -> list[np.ndarray]:
    """Indices of each step's images, without those that are held out."""
    chosen = [np.intersect1d(domain, kept) for domain in domains]
    empty = next((k for k, indices in enumerate(chosen) if not len(indices)), None)
    if empty is not None:
        raise SettingError(f"step {empty} has no image of its domain", "leave the domain out, or get its images")
    if len(np.unique(np.concatenate(chosen))) != sum(map(len, chosen)):
        raise SettingError("an image belongs to two domains", "each image goes to one step")
    return [np.sort(np.concatenate(chosen))] if joint else chosen


@dataclass(frozen=True)
class TaskSource:
    """A task of a sequence and where its images come from.

    Attributes:
        task: what is learnt; a segmentation task says how many classes it has.
        train, test: readers; of tasks that do not look at masks, without them.
        transforms: of samples.
    """

    task: Task
    train: DenseDataset
    test: DenseDataset
    transforms: Transforms = AS_THEY_ARE

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by label, none for tasks without classes.

        Raises:
            SettingError: the data set has other classes than the task.
        """
        if self.task.kind != "segmentation":
            return ()
        names = ("background" if self.task.has_background else "other", *self.train.class_names)
        if self.task.outputs not in (None, len(names)):
            raise SettingError(
                f"task '{self.task.name}' has {self.task.outputs} outputs, and {self.train.name} has "
                f"{len(names) - 1} classes and background"
            )
        return names


def task_sequence(
    sources: Sequence[TaskSource],
    *,
    validation: float = 0.0,
    validation_seed: int = 0,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
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
        SettingError: see `task_stream`; a task whose classes are not its data set's.
    """
    stream = task_stream([source.task for source in sources], [source.names for source in sources])
    images, tests = [], []
    for source, names in zip(sources, stream.names, strict=True):
        kept, held = hold_out(len(source.train), validation, validation_seed)
        table = lookup_table({n: n for n in range(len(names))}, VOID) if names else torch.zeros(256, dtype=torch.uint8)
        images.append(StepImages(kept, table))
        reader, indices = (source.train, held) if len(held) else (source.test, np.arange(len(source.test)))
        tests.append(TestSamples(reader, indices, table, source.transforms.evaluate))
    digest = hashlib.sha256()
    for source, own, test in zip(sources, images, tests, strict=True):
        settings = [source.task.name, source.task.kind, source.task.settings]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        digest.update(_names(source.train, own.indices) + _names(test.reader, test.indices))
        digest.update(own.table.numpy().tobytes())
    return assembled(
        stream,
        [source.train for source in sources],
        images,
        [np.zeros((len(own.indices), 256), dtype=bool) for own in images],  # not balanced by label, so not scanned
        tests,
        [source.transforms for source in sources],
        normalisation(mean, std),
        seed,
        digest.hexdigest()[:16],
        (0,) * len(sources),
    )


def _told(
    stream: Stream,
    images: Sequence[StepImages],
    presence: Sequence[np.ndarray],
    tests: TestSamples,
    test_presence: np.ndarray,
) -> tuple[list[StepImages], list[np.ndarray], list[TestSamples]]:
    """Training images, their labels and test samples of steps that are tasks: labels are counted anew from 1.

    Raises:
        SettingError: no test image holds a class of some step.
    """
    own_images, own_presence, own_tests = [], [], []
    for step, labels in enumerate(stream.groups):
        ids = np.flatnonzero(np.isin(tests.table.numpy(), labels))
        indices = tests.indices[test_presence[tests.indices][:, ids].any(axis=1)]
        if not len(indices):
            raise SettingError(
                f"no test image holds a class of step {step}", "use another split, or get the missing test images"
            )
        own_images.append(StepImages(images[step].indices, renumbered(images[step].table, labels, others=0)))
        present = np.zeros_like(presence[step])
        present[:, 1 : 1 + len(labels)] = presence[step][:, list(labels)]
        own_presence.append(present)
        table = renumbered(tests.table, labels, others=VOID)
        own_tests.append(TestSamples(tests.reader, indices, table, tests.transform))
    return own_images, own_presence, own_tests


def renumbered(table: Tensor, labels: Sequence[int], others: int) -> Tensor:
    """A table of labels (256,) uint8 with `labels` as 1.. in their order; 0 and void stay, all else is `others`."""
    local = table.new_full((256,), others)
    local[0], local[VOID] = 0, VOID
    for number, label in enumerate(labels, start=1):
        local[label] = number
    return local[table.long()]


def _fingerprint(parts: Sequence[tuple[Any, StepImages]]) -> str:
    """Hash of image names and label tables."""
    digest = hashlib.sha256()
    for reader, images in parts:
        digest.update(_names(reader, images.indices))
        digest.update(images.table.numpy().tobytes())
    return digest.hexdigest()[:16]


def _names(reader: Any, indices: np.ndarray) -> bytes:
    return "\n".join(Path(reader.ids[i]).name for i in indices).encode()


def _labels_present(presence: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(n, 256) bool over original ids -> over the targets that `table` makes of them."""
    result = np.zeros_like(presence)
    for original in np.flatnonzero(presence.any(axis=0)):
        result[:, table[original]] |= presence[:, original]
    return result
