"""Scenarios: streams with readers, on which runs train and test, and their experiences."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.errors import DataError, SettingError
from densecl.streams import protocol
from densecl.streams.protocol import VOID
from densecl.streams.samples import (
    AS_THEY_ARE,
    Normalisation,
    PlainSamples,
    StepImages,
    TestSamples,
    TrainingSamples,
    Transforms,
)
from densecl.streams.stream import Step, Stream, class_stream, task_stream
from densecl.tasks import Task

if TYPE_CHECKING:
    from avalanche.benchmarks.scenarios.generic_scenario import CLScenario

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in 0..1


@dataclass(frozen=True, eq=False)
class Experience(Step):
    """A step with its data."""

    images: StepImages  # indices into the data set, and the label table
    presence: np.ndarray  # (n, 256) bool, the labels of this step's targets in each of its images
    dataset: PlainSamples  # its samples without random augmentation, (normalised image, target) each


@dataclass(frozen=True)
class Scenario:
    """A stream with readers."""

    stream: Stream
    experiences: tuple[Experience, ...]  # training data of each step
    test_experiences: tuple[Experience, ...]  # test data of each step
    training: TrainingSamples  # by key, for the loader
    tests: tuple[TestSamples, ...]  # of each head; a stream with one head has one set for all steps
    normalisation: Normalisation
    fingerprint: str  # hash of image names, label tables and classes; equal streams have equal ones
    later: tuple[int, ...]  # number of training images of each step that hold a class of a later step

    def tests_of(self, head: int) -> TestSamples:
        """The test samples of a head."""
        return self.tests[head if self.stream.by_task else 0]

    @cached_property
    def avalanche(self) -> "CLScenario":
        """Avalanche's scenario of the same experiences."""
        from densecl.streams.containers import as_avalanche

        return as_avalanche(self)

    # Avalanche's streams of these experiences
    train_stream = property(lambda self: self.avalanche.train_stream)
    test_stream = property(lambda self: self.avalanche.test_stream)


class StepData(NamedTuple):
    """The training data of a step; `presence` is (n, 256) bool, the labels of its targets in each of its images."""

    reader: DenseDataset
    images: StepImages
    presence: np.ndarray
    transforms: Transforms


def assembled(
    stream: Stream,
    data: Sequence[StepData],
    tests: Sequence[TestSamples],
    normalised: Normalisation,
    seed: int,
    fingerprint: str,
    later: tuple[int, ...],
) -> Scenario:
    """Make the scenario of a stream from the data of each step and the test samples of each head."""
    train, test = [], []
    for step, (reader, images, presence, transforms) in zip(stream.steps, data, strict=True):
        samples = PlainSamples(reader, images, transforms.plain, normalised, step.task)
        train.append(Experience(**vars(step), images=images, presence=presence, dataset=samples))
        own = tests[step.step if stream.by_task else 0]
        images, unknown = StepImages(own.indices, own.table), np.zeros((len(own), 256), dtype=bool)
        samples = PlainSamples(own.reader, images, own.transform, normalised, step.task)
        test.append(Experience(**vars(step), images=images, presence=unknown, dataset=samples))  # masks are not scanned
    training = TrainingSamples([d.reader for d in data], [d.images for d in data], [d.transforms for d in data], seed)
    return Scenario(stream, tuple(train), tuple(test), training, tuple(tests), normalised, fingerprint, later)


def normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    """Mean and standard deviation, numbers in 0..1, as tensors."""
    return Normalisation(*(torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (mean, std)))


def hold_out(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted (used, held-out) positions of n training images."""
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
        test_presence: as `presence`, of the test masks; used for `by_task` alone.

    SettingError as `protocol.select`, and for a step of `by_task` without a test image; DataError as the readers.
    """
    _check_masks(train, test)
    presence = class_index(train) if presence is None else presence
    used, held = hold_out(len(train), validation, validation_seed)
    trained: protocol.Steps = (tuple(c for step in steps for c in step),) if joint else steps
    if domains is None:
        # joint training takes all images
        chosen = protocol.select(presence[used], trained, "overlapped" if joint else setting, seed=partition_seed)
        later = protocol.later_classes(presence[used], trained, chosen)
        chosen = [used[indices] for indices in chosen]
        tables = [protocol.step_table(trained, k, setting, labels) for k in range(len(trained))]
    else:
        chosen, setting, later = _of_domains(domains, used, joint), "domain", (0,) * len(trained)
        tables = [protocol.step_table((steps[0],), 0, "overlapped", labels)] * len(trained)
    images = [StepImages(own, torch.from_numpy(table)) for own, table in zip(chosen, tables, strict=True)]
    first, arrival = "background" if train.has_background else "other", protocol.arrival(steps)
    stream = class_stream(
        train.name,
        [[arrival[c] for c in step] for step in steps],
        (first, *(train.class_names[c - 1] for c in arrival)),
        has_background=train.has_background,
        setting=setting,
        labels=labels,
        joint=joint,
        by_task=by_task,
    )
    reader, indices = (train, held) if validation else (test, np.arange(len(test)))
    tests = [TestSamples(reader, indices, torch.from_numpy(protocol.test_table(steps)), transforms.evaluate)]
    parts = [*((train, own) for own in images), (reader, StepImages(indices, tests[0].table))]
    fingerprint = _hash([b for source, own in parts for b in (_names(source, own.indices), _bytes(own.table))])
    data = [
        StepData(train, own, _labels_present(presence[own.indices], own.table.numpy()), transforms) for own in images
    ]
    if by_task:
        if validation or test_presence is None:
            test_presence = presence if validation else class_index(test)
        data, tests = _told(stream, data, tests[0], test_presence)
    return assembled(stream, data, tests, normalisation(mean, std), seed, fingerprint, later)


def domain_incremental(
    train: DenseDataset, test: DenseDataset, domains: Sequence[np.ndarray], **options: Any
) -> Scenario:
    """Domain-incremental segmentation: all classes at every step, in images of another kind (PLOP's Cityscapes).

    Step 0 brings all classes; later steps bring none, so heads do not grow and nothing hides in background. `domains`
    are sorted indices into `train` of each step; `options` are those of `class_incremental`.
    SettingError for a step without images, or an image of two steps; DataError as the readers.
    """
    steps: protocol.Steps = (tuple(range(1, 1 + len(train.class_names))), *(() for _ in domains[1:]))
    return class_incremental(train, test, steps, domains=domains, **options)


def _of_domains(domains: Sequence[np.ndarray], used: np.ndarray, joint: bool) -> list[np.ndarray]:
    """Indices of each step's images, without held-out ones."""
    chosen = [np.intersect1d(domain, used) for domain in domains]
    empty = next((k for k, indices in enumerate(chosen) if not len(indices)), None)
    if empty is not None:
        raise SettingError(f"step {empty} has no image of its domain", "leave the domain out, or get its images")
    if len(np.unique(np.concatenate(chosen))) != sum(map(len, chosen)):
        raise SettingError("an image belongs to two domains", "each image goes to one step")
    return [np.sort(np.concatenate(chosen))] if joint else chosen


@dataclass(frozen=True)
class TaskSource:
    """A task of a sequence with the readers and transforms of its images; the masks of some tasks are not used."""

    task: Task
    train: DenseDataset
    test: DenseDataset
    transforms: Transforms = AS_THEY_ARE
    part: tuple[int, int] = (1, 1)  # (k, n): the k-th of n consecutive parts of the training images

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by label, none for tasks without classes; SettingError if the data set has other ones."""
        if self.task.kind != "segmentation":
            return ()
        _check_masks(self.train, self.test)
        names = ("background" if self.task.has_background else "other", *self.train.class_names)
        if self.task.outputs not in (None, len(names)):
            own = f"{self.train.name} has {len(names) - 1} classes and background"
            raise SettingError(f"task '{self.task.name}' has {self.task.outputs} outputs, and {own}")
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
    """Tasks learnt one after another, each on its part of the images; options are those of `class_incremental`.

    Labels are those of the data set, in every task from 0; all classes of a task arrive at its step. SettingError for
    no task, a name used twice or with other characters than letters, digits, - and _, a task without a number of
    outputs, or with other classes than its data set.
    """
    stream = task_stream([source.task for source in sources], [source.names for source in sources])
    data, tests, hashed = [], [], []
    for source, names in zip(sources, stream.names, strict=True):
        used, held = hold_out(len(source.train), validation, validation_seed)
        own, of = source.part
        used = np.array_split(used, of)[own - 1]
        if not len(used):
            raise SettingError(
                f"task '{source.task.name}' has no training image", f"cut them into fewer than {of} parts"
            )
        fill = VOID if names else 0
        table = torch.from_numpy(protocol.lookup_table({n: n for n in range(len(names))}, fill, void=fill))
        unknown = np.zeros((len(used), 256), dtype=bool)  # not balanced by label, so not scanned
        data.append(StepData(source.train, StepImages(used, table), unknown, source.transforms))
        reader, indices = (source.train, held) if len(held) else (source.test, np.arange(len(source.test)))
        tests.append(TestSamples(reader, indices, table, source.transforms.evaluate))
        settings = json.dumps([source.task.name, source.task.kind, source.task.settings], sort_keys=True)
        hashed += [settings.encode(), _names(source.train, used), _names(reader, indices), _bytes(table)]
    nothing_later = (0,) * len(sources)
    return assembled(stream, data, tests, normalisation(mean, std), seed, _hash(hashed), nothing_later)


def _check_masks(*readers: DenseDataset) -> None:
    """Refuse data sets without masks."""
    for reader in readers:
        if not reader.has_masks:
            fault = f"the data set '{reader.name}' has no masks ({reader.source})"
            raise DataError(
                fault, "segmentation needs one for each image: name another data set, or a class of your own"
            )


def _told(
    stream: Stream, data: Sequence[StepData], tests: TestSamples, test_presence: np.ndarray
) -> tuple[list[StepData], list[TestSamples]]:
    """Number each step's labels from 1, in training data and tests; SettingError for a step without a test image."""
    own_data, own_tests = [], []
    for step, (labels, part) in enumerate(zip(stream.groups, data, strict=True)):
        ids = np.flatnonzero(np.isin(tests.table.numpy(), labels))
        indices = tests.indices[test_presence[tests.indices][:, ids].any(axis=1)]
        if not len(indices):
            message = f"no test image holds a class of step {step}"
            raise SettingError(message, "use another split, or get the missing test images")
        images = StepImages(part.images.indices, renumbered(part.images.table, labels, others=0))
        presence = np.zeros_like(part.presence)
        presence[:, 1 : 1 + len(labels)] = part.presence[:, list(labels)]
        own_data.append(part._replace(images=images, presence=presence))
        table = renumbered(tests.table, labels, others=VOID)
        own_tests.append(replace(tests, indices=indices, table=table))
    return own_data, own_tests


def renumbered(table: Tensor, labels: Sequence[int], others: int) -> Tensor:
    """A table of labels (256,) uint8 with `labels` as 1.. in their order; 0 and void stay, all else is `others`."""
    local = table.new_full((256,), others)
    local[0], local[VOID] = 0, VOID
    for number, label in enumerate(labels, start=1):
        local[label] = number
    return local[table.long()]


def _hash(parts: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _names(reader: DenseDataset, indices: np.ndarray) -> bytes:
    return "\n".join(Path(reader.ids[i]).name for i in indices).encode()


def _bytes(table: Tensor) -> bytes:
    return table.numpy().tobytes()


def _labels_present(presence: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(n, 256) bool over original ids -> over the targets that `table` gives them."""
    result = np.zeros_like(presence)
    for original in np.flatnonzero(presence.any(axis=0)):
        result[:, table[original]] |= presence[:, original]
    return result
