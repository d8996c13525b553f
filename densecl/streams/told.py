"""Task-incremental streams: the steps of a class-incremental one as tasks, each with a head of its own."""

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from densecl.errors import SettingError
from densecl.streams.containers import DenseExperience, Scenario
from densecl.streams.samples import PlainSamples, Reader, StepImages, TestSamples, TrainingSamples, Transform
from densecl.tasks import segmentation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from avalanche.benchmarks.utils.data import make_avalanche_dataset

VOID = 255


def told(scenario: Scenario, presence: np.ndarray, plain: Transform) -> Scenario:
    """The same steps for methods that are told which one an image is of: background and the step's classes each.

    Training images are those of the stream, their labels counted anew from 1. A step's test images are those that hold
    one of its classes; pixels of other steps' classes are void there, so an image is judged once for each step that it
    holds classes of, and its background as often. Scores are over the labels of the stream, as for all methods.

    Args:
        scenario: of `class_incremental`.
        presence: (n, 256) bool, which ids each mask of the evaluated reader holds.
        plain: fixed transform of training samples, for stock plugins.

    Raises:
        SettingError: no test image holds a class of some step.
    """
    reader, transforms = scenario.training.reader, scenario.training.transforms
    ends = scenario.test.transform or plain
    train, test, images, tests = [], [], [], []
    for experience, labels in zip(scenario.train_stream, scenario.groups, strict=True):
        step = experience.step
        task = segmentation(f"step{step}", classes=len(labels), has_background=scenario.has_background)
        found = _holding(scenario.test, labels, presence)
        if not len(found):
            raise SettingError(
                f"no test image holds a class of step {step}", "use another split, or get the missing test images"
            )
        images.append(StepImages(experience.images.indices, renumbered(experience.images.table, labels, others=0)))
        table = renumbered(scenario.test.table, labels, others=VOID)
        tests.append(TestSamples(scenario.test.reader, found, table, scenario.test.transform))
        present = np.zeros_like(experience.presence)
        present[:, 1 : 1 + len(labels)] = experience.presence[:, list(labels)]

        def made(source: Reader, of: StepImages, transform: Transform, held: np.ndarray) -> DenseExperience:
            samples = PlainSamples(source, of, transform, *scenario.normalisation, task=task)  # noqa: B023
            dataset = make_avalanche_dataset(samples)  # type: ignore[arg-type]
            return DenseExperience(dataset, step, task, labels, experience.seen_classes, of, held)  # noqa: B023

        train.append(made(reader, images[-1], plain, present))
        unknown = np.zeros((len(found), 256), dtype=bool)
        test.append(made(scenario.test.reader, StepImages(found, table), ends, unknown))
    return Scenario(
        train,
        test,
        class_names=scenario.class_names,
        settings=scenario.settings,
        training=TrainingSamples(reader, images, transforms, scenario.training.seed),
        tests=tests,
        normalisation=scenario.normalisation,
        fingerprint=scenario.fingerprint,
        by_task=True,
    )


def renumbered(table: Tensor, labels: Sequence[int], others: int) -> Tensor:
    """A table of labels (256,) uint8 with `labels` as 1.. in their order; 0 and void stay, all else is `others`."""
    local = table.new_full((256,), others)
    local[0], local[VOID] = 0, VOID
    for number, label in enumerate(labels, start=1):
        local[label] = number
    return local[table.long()]


def _holding(test: TestSamples, labels: Sequence[int], presence: np.ndarray) -> np.ndarray:
    """Indices of the test images that hold one of these labels."""
    ids = np.flatnonzero(np.isin(test.table.numpy(), labels))
    return test.indices[presence[test.indices][:, ids].any(axis=1)]
