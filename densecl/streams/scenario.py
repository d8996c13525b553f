"""Scenarios: Avalanche's streams of experiences, for dense targets.

Avalanche's generators derive steps from one integer label an image, which cannot express overlapped masks; so the
experiences are made here, explicitly, and only the containers are Avalanche's.
"""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.data.transforms import Compose
from densecl.errors import SettingError
from densecl.streams import protocol
from densecl.streams.samples import PlainSamples, StepImages, TestSamples, TrainingSamples, Transform
from densecl.tasks import Task, segmentation

with warnings.catch_warnings():
    # QP solvers, jaxopt and pkg_resources announce themselves at import; none of them is used here.
    warnings.simplefilter("ignore")
    logging.getLogger("jax").setLevel(logging.ERROR)
    from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
    from avalanche.benchmarks.scenarios.generic_scenario import CLScenario, EagerCLStream
    from avalanche.benchmarks.utils.data import make_avalanche_dataset


class Normalisation(NamedTuple):
    """Mean and standard deviation of RGB in 0..1, (3, 1, 1) each."""

    mean: Tensor
    std: Tensor


class DenseExperience(DatasetExperience):
    """The data of one step.

    Attributes:
        step: counted from 0.
        task: what the network must output.
        new_classes: labels that arrive at this step.
        seen_classes: labels of this and all earlier steps, background excluded.
        images: indices into the data set and the label table.
        presence: (n, 256) bool, which labels of this step's targets each of its images holds.
    """

    def __init__(
        self,
        dataset: Any,
        step: int,
        task: Task,
        new: Sequence[int],
        seen: Sequence[int],
        images: StepImages,
        presence: np.ndarray,
    ):
        super().__init__(dataset=dataset, current_experience=step)
        self.step, self.task, self.images, self.presence = step, task, images, presence
        self.new_classes: tuple[int, ...] = tuple(new)
        self.seen_classes: tuple[int, ...] = tuple(seen)

    @property
    def n_outputs(self) -> int:
        """Outputs the network has after this step, output 0 included."""
        return 1 + len(self.seen_classes)

    # the names stock plugins look for
    @property
    def classes_in_this_experience(self) -> list[int]:
        """Labels that arrive at this step."""
        return list(self.new_classes)

    @property
    def previous_classes(self) -> list[int]:
        """Labels of earlier steps."""
        return [c for c in self.seen_classes if c not in self.new_classes]

    @property
    def classes_seen_so_far(self) -> list[int]:
        """Labels of this and all earlier steps."""
        return list(self.seen_classes)


@dataclass(frozen=True)
class StreamInfo:
    """What a scenario knows besides its streams.

    Attributes:
        steps: class ids of each step that is trained.
        groups: class ids of the benchmark's steps; the same, but for `joint`, which trains them all in one.
        labels: the label preset. setting: which images a step has.
        later: how many training images of each step hold a class of a later step.
    """

    steps: protocol.Steps
    groups: protocol.Steps
    setting: str
    labels: str
    later: tuple[int, ...] = ()


class Scenario(CLScenario):
    """A stream of tasks.

    Attributes:
        train_stream, test_stream: DenseExperience of each step.
        tasks: of each step.
        class_names: by label; [0] is background, or `other` where the data set has none.
        has_background: whether output 0 is a class.
        settings: how the stream was made.
        fingerprint: hash of image names, label tables and classes; equal streams have equal ones.
        training: samples by key, for the loader. test: samples for evaluation.
    """

    train_stream: EagerCLStream
    test_stream: EagerCLStream

    def __init__(
        self,
        train: list[DenseExperience],
        test: list[DenseExperience],
        *,
        class_names: tuple[str, ...],
        settings: StreamInfo,
        training: TrainingSamples,
        test_samples: TestSamples,
        normalisation: Normalisation,
        fingerprint: str,
    ):
        super().__init__([EagerCLStream("train", train), EagerCLStream("test", test)])
        self.tasks = tuple(experience.task for experience in train)
        self.class_names, self.settings, self.normalisation = class_names, settings, normalisation
        self.training, self.test, self.fingerprint = training, test_samples, fingerprint
        self.has_background = train[0].task.has_background

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Labels of the benchmark's steps, in order of arrival."""
        number = protocol.arrival(self.settings.groups)
        return tuple(tuple(number[c] for c in group) for group in self.settings.groups)


def class_incremental(
    train: DenseDataset,
    test: DenseDataset,
    steps: protocol.Steps,
    *,
    setting: str = "overlapped",
    partition_seed: int = 0,
    labels: str = "plop2021",
    joint: bool = False,
    validation: float = 0.0,
    validation_seed: int = 0,
    augment: Transform | None = None,
    plain: Transform | None = None,
    evaluate: Transform | None = None,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    seed: int = 0,
    presence: np.ndarray | None = None,
) -> Scenario:
    """Class-incremental segmentation: each step labels its own classes only.

    Args:
        train: reader of the training images.
        test: reader of the test images.
        steps: class ids of each step, background excluded (`protocol.steps`).
        setting: one of `protocol.SETTINGS`.
        partition_seed: of the ties of `partitioned`.
        labels: one of `protocol.LABELS`, see `protocol.step_table` and `metrics.grouping.UNSEEN`.
        joint: one step with all labels instead; groupings keep `steps`.
        validation: share of the training images that is held out and evaluated instead of `test`.
        validation_seed: which images those are.
        augment: random transform of training samples.
        plain: a fixed one of the same output size, for stock plugins.
        evaluate: transform of evaluated samples.
        mean: of RGB in 0..1.
        std: of RGB in 0..1.
        seed: of augmentation.
        presence: (n, 256) bool, which ids each training mask holds; read from the masks (and cached) when None.

    Raises:
        SettingError, DataError: as `protocol.select` and the readers.
    """
    presence = class_index(train) if presence is None else presence
    kept, held = _hold_out(len(train), validation, validation_seed)
    trained: protocol.Steps = (tuple(c for step in steps for c in step),) if joint else steps
    chosen = "overlapped" if joint else setting  # joint: all images
    selected = protocol.select(presence[kept], trained, chosen, seed=partition_seed)
    tables = [protocol.step_table(trained, k, setting, labels) for k in range(len(trained))]
    return _assemble(
        train,
        test,
        [StepImages(kept[indices], torch.from_numpy(t)) for indices, t in zip(selected, tables, strict=True)],
        StreamInfo(trained, steps, setting, labels, protocol.later_classes(presence[kept], trained, selected)),
        held=held if validation else None,
        presence=presence,
        transforms=_Transforms(augment, plain, evaluate),
        normalisation=_normalisation(mean, std),
        seed=seed,
    )


def domain_incremental(
    train: DenseDataset,
    test: DenseDataset,
    domains: Sequence[np.ndarray],
    *,
    labels: str = "plop2021",
    joint: bool = False,
    validation: float = 0.0,
    validation_seed: int = 0,
    augment: Transform | None = None,
    plain: Transform | None = None,
    evaluate: Transform | None = None,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    seed: int = 0,
    presence: np.ndarray | None = None,
) -> Scenario:
    """Domain-incremental segmentation: all classes at every step, in images of another kind (PLOP's Cityscapes).

    Step 0 brings all classes; later steps bring none, so heads do not grow and nothing hides in background.

    Args:
        train: reader of the training images.
        test: reader of the test images, the same at every step.
        domains: sorted indices into `train` of each step, such as `cityscapes.domains` gives.
        labels: as all that follow, see `class_incremental`.
        joint: one step with the images of all domains.
        validation: share that is held out of all domains alike.
        validation_seed: which images those are.
        augment: of training samples.
        plain: for stock plugins.
        evaluate: of evaluated samples.
        mean: of RGB.
        std: of RGB.
        seed: of augmentation.
        presence: which ids each training mask holds.

    Raises:
        SettingError: a step without images, or an image of two steps. DataError: as the readers.
    """
    presence = class_index(train) if presence is None else presence
    kept, held = _hold_out(len(train), validation, validation_seed)
    chosen = [np.intersect1d(domain, kept) for domain in domains]
    empty = next((k for k, indices in enumerate(chosen) if not len(indices)), None)
    if empty is not None:
        raise SettingError(f"step {empty} has no image of its domain", "leave the domain out, or get its images")
    if len(np.unique(np.concatenate(chosen))) != sum(map(len, chosen)):
        raise SettingError("an image belongs to two domains", "each image goes to one step")
    if joint:
        chosen = [np.sort(np.concatenate(chosen))]
    classes = tuple(range(1, 1 + len(train.class_names)))
    groups: protocol.Steps = (classes, *(() for _ in domains[1:]))
    table = torch.from_numpy(protocol.step_table((classes,), 0, "overlapped", labels))
    return _assemble(
        train,
        test,
        [StepImages(indices, table) for indices in chosen],
        StreamInfo((classes,) if joint else groups, groups, "domain", labels, (0,) * len(chosen)),
        held=held if validation else None,
        presence=presence,
        transforms=_Transforms(augment, plain, evaluate),
        normalisation=_normalisation(mean, std),
        seed=seed,
    )


class _Transforms(NamedTuple):
    """What `class_incremental` calls augment, plain and evaluate."""

    augment: Transform | None
    plain: Transform | None
    evaluate: Transform | None


def _assemble(
    train: DenseDataset,
    test: DenseDataset,
    images: list[StepImages],
    info: StreamInfo,
    *,
    held: np.ndarray | None,
    presence: np.ndarray,
    transforms: _Transforms,
    normalisation: Normalisation,
    seed: int,
) -> Scenario:
    """The experiences of steps whose images and label tables are known; `held` is evaluated instead of `test`."""
    task = segmentation(train.name, has_background=train.has_background)
    identity = Compose([])
    plain = transforms.plain or identity
    test_table = torch.from_numpy(protocol.test_table(info.groups))
    test_reader, test_indices = (test, np.arange(len(test))) if held is None else (train, held)
    test_samples = TestSamples(test_reader, test_indices, test_table, transforms.evaluate)
    test_images = StepImages(test_indices, test_table)
    plain_test = PlainSamples(test_reader, test_images, transforms.evaluate or identity, *normalisation)
    test_dataset = make_avalanche_dataset(plain_test)  # type: ignore[arg-type]
    no_labels = np.zeros((len(test_indices), 256), dtype=bool)  # the test stream's masks are not scanned
    number = protocol.arrival(info.groups)
    train_experiences, test_experiences = [], []
    seen: list[int] = []
    for k, (classes, step_images) in enumerate(zip(info.steps, images, strict=True)):
        new = [number[c] for c in classes]
        seen = seen + new
        samples = PlainSamples(train, step_images, plain, *normalisation)
        dataset = make_avalanche_dataset(samples)  # type: ignore[arg-type]
        held_labels = _labels_present(presence[step_images.indices], step_images.table.numpy())
        train_experiences.append(DenseExperience(dataset, k, task, new, seen, step_images, held_labels))
        test_experiences.append(DenseExperience(test_dataset, k, task, new, seen, test_images, no_labels))
    first = "background" if train.has_background else "other"
    return Scenario(
        train_experiences,
        test_experiences,
        class_names=(first, *(train.class_names[c - 1] for c in number)),
        settings=info,
        training=TrainingSamples(train, images, transforms.augment or identity, seed),
        test_samples=test_samples,
        normalisation=normalisation,
        fingerprint=_fingerprint(train, images, test_reader, test_samples),
    )


def _normalisation(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    return Normalisation(*(torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (mean, std)))


def _labels_present(presence: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(n, 256) bool over original ids -> over the targets that `table` makes of them."""
    result = np.zeros_like(presence)
    for original in np.flatnonzero(presence.any(axis=0)):
        result[:, table[original]] |= presence[:, original]
    return result


def _hold_out(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted (kept, held-out) positions of n training images."""
    shuffled = np.random.default_rng([seed, 4711]).permutation(n)
    count = round(share * n)
    if share and not 0 < count < n:
        count = 1
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])


def _fingerprint(train: DenseDataset, images: list[StepImages], test: DenseDataset, samples: TestSamples) -> str:
    digest = hashlib.sha256()
    for reader, indices, table in [(train, i.indices, i.table) for i in images] + [
        (test, samples.indices, samples.table)
    ]:
        digest.update("\n".join(Path(reader.ids[i]).name for i in indices).encode())
        digest.update(table.numpy().tobytes())
    return digest.hexdigest()[:16]
