"""Scenarios: Avalanche's streams of experiences, for dense targets.

Avalanche's generators derive steps from one integer label an image, which cannot express overlapped masks; so the
experiences are made here, explicitly, and only the containers are Avalanche's.
"""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.data.transforms import Compose
from densecl.errors import SettingError
from densecl.streams import protocol
from densecl.streams.containers import DenseExperience, Normalisation, Scenario, StreamInfo, hold_out, normalisation
from densecl.streams.samples import PlainSamples, StepImages, TestSamples, TrainingSamples, Transform
from densecl.streams.sequence import TaskSource, task_sequence
from densecl.streams.told import told
from densecl.tasks import segmentation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from avalanche.benchmarks.utils.data import make_avalanche_dataset

__all__ = [
    "DenseExperience",
    "Normalisation",
    "Scenario",
    "StreamInfo",
    "TaskSource",
    "class_incremental",
    "domain_incremental",
    "task_sequence",
]


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
    validation: float = 0.0,
    validation_seed: int = 0,
    augment: Transform | None = None,
    plain: Transform | None = None,
    evaluate: Transform | None = None,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
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
        by_task: each step has a head of its own, and the method is told the step; see `streams.told`.
        validation: share of the training images that is held out and evaluated instead of `test`.
        validation_seed: which images those are.
        augment: random transform of training samples.
        plain: a fixed one of the same output size, for stock plugins.
        evaluate: transform of evaluated samples.
        mean: of RGB in 0..1.
        std: of RGB in 0..1.
        seed: of augmentation.
        presence: (n, 256) bool, which ids each training mask holds; read from the masks (and cached) when None.
        test_presence: the same of the test masks; looked at for `by_task` alone.

    Raises:
        SettingError, DataError: as `protocol.select` and the readers.
    """
    presence = class_index(train) if presence is None else presence
    kept, held = hold_out(len(train), validation, validation_seed)
    trained: protocol.Steps = (tuple(c for step in steps for c in step),) if joint else steps
    chosen = "overlapped" if joint else setting  # joint: all images
    selected = protocol.select(presence[kept], trained, chosen, seed=partition_seed)
    tables = [protocol.step_table(trained, k, setting, labels) for k in range(len(trained))]
    scenario = _assemble(
        train,
        test,
        [StepImages(kept[indices], torch.from_numpy(t)) for indices, t in zip(selected, tables, strict=True)],
        StreamInfo(trained, steps, setting, labels, protocol.later_classes(presence[kept], trained, selected)),
        held=held if validation else None,
        presence=presence,
        transforms=_Transforms(augment, plain, evaluate),
        normalised=normalisation(mean, std),
        seed=seed,
    )
    if not by_task:
        return scenario
    if test_presence is None:
        test_presence = presence if validation else class_index(test)
    return told(scenario, presence if validation else test_presence, plain or Compose([]))


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
    kept, held = hold_out(len(train), validation, validation_seed)
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
        normalised=normalisation(mean, std),
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
    normalised: Normalisation,
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
    plain_test = PlainSamples(test_reader, test_images, transforms.evaluate or identity, *normalised)
    test_dataset = make_avalanche_dataset(plain_test)  # type: ignore[arg-type]
    no_labels = np.zeros((len(test_indices), 256), dtype=bool)  # the test stream's masks are not scanned
    number = protocol.arrival(info.groups)
    train_experiences, test_experiences = [], []
    seen: list[int] = []
    for k, (classes, step_images) in enumerate(zip(info.steps, images, strict=True)):
        new = [number[c] for c in classes]
        seen = seen + new
        samples = PlainSamples(train, step_images, plain, *normalised)
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
        tests=(test_samples,),
        normalisation=normalised,
        fingerprint=_fingerprint(train, images, test_reader, test_samples),
    )


def _labels_present(presence: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(n, 256) bool over original ids -> over the targets that `table` makes of them."""
    result = np.zeros_like(presence)
    for original in np.flatnonzero(presence.any(axis=0)):
        result[:, table[original]] |= presence[:, original]
    return result


def _fingerprint(train: DenseDataset, images: list[StepImages], test: DenseDataset, samples: TestSamples) -> str:
    digest = hashlib.sha256()
    for reader, indices, table in [(train, i.indices, i.table) for i in images] + [
        (test, samples.indices, samples.table)
    ]:
        digest.update("\n".join(Path(reader.ids[i]).name for i in indices).encode())
        digest.update(table.numpy().tobytes())
    return digest.hexdigest()[:16]
