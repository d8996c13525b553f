"""The stream of a run without its images: what a network needs to grow as it did, so that weights can be used alone."""

import warnings
from typing import NoReturn

import numpy as np
import torch

from densecl.data.transforms import Compose
from densecl.errors import RecordError
from densecl.records.record import Record
from densecl.runner.plan import Plan
from densecl.streams.containers import DenseExperience, Scenario, StreamInfo, normalisation
from densecl.streams.samples import StepImages, TestSamples, TrainingSamples
from densecl.tasks import Context, Task, segmentation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from avalanche.benchmarks.utils.data import make_avalanche_dataset

Groups = tuple[tuple[int, ...], ...]


class NoImages:
    """A reader of nothing."""

    def __len__(self) -> int:
        return 0

    def _nothing(self, _index: int, /) -> NoReturn:
        raise IndexError("a stream without images")

    read = read_mask = image_path = mask_path = _nothing


def imageless(plan: Plan, record: Record) -> Scenario:
    """The steps, tasks and labels of a recorded run; no data set is opened.

    Class ids are labels here: what a stream with images knows of the data set's own order is not recorded.
    """
    if record.tasks:
        groups, tasks = _labels_of_tasks(record), _tasks(plan, record)
    else:
        groups, tasks = _groups(plan, record), _steps(plan, record)
    seen: tuple[int, ...] = ()
    experiences = []
    nothing = StepImages(np.zeros(0, np.int64), torch.arange(256, dtype=torch.uint8))
    for step, (task, labels) in enumerate(zip(tasks, groups, strict=True)):
        seen = labels if record.tasks else (*seen, *labels)
        dataset = make_avalanche_dataset([])  # type: ignore[arg-type]
        experiences.append(DenseExperience(dataset, step, task, labels, seen, nothing, np.zeros((0, 256), dtype=bool)))
    reader, data = NoImages(), plan.settings.data
    kind = "tasks" if record.tasks else "classes"
    return Scenario(
        experiences,
        experiences,
        class_names=tuple(record.class_names),
        settings=StreamInfo(groups, groups, kind, kind, (0,) * len(groups)),
        training=TrainingSamples(reader, [nothing] * len(groups), Compose([]), plan.settings.seed),
        tests=[TestSamples(reader, nothing.indices, nothing.table, None)] * len(groups),
        normalisation=normalisation(data.mean, data.std),
        fingerprint="",
        kind=kind,
        names=[tuple(task.class_names) for task in record.tasks],
        by_task=plan.method.told,
    )


def _groups(plan: Plan, record: Record) -> Groups:
    """Labels of each step that was trained."""
    groups = tuple(tuple(group) for group in record.planned_steps)
    groups = groups or tuple(tuple(step.new_classes) for step in record.steps)
    joint: bool = plan.method.strategy.cls.joint  # type: ignore[attr-defined]
    return (tuple(label for group in groups for label in group),) if joint else groups


def _steps(plan: Plan, record: Record) -> list[Task]:
    """The task of each step of a class-incremental stream: one for all, or each step its own (`streams.told`)."""
    groups, background = _groups(plan, record), record.has_background
    if plan.method.told:
        sizes = map(len, groups)
        return [segmentation(f"step{step}", classes=size, has_background=background) for step, size in enumerate(sizes)]
    return [segmentation(plan.settings.data.name, has_background=background)] * len(groups)


def _labels_of_tasks(record: Record) -> Groups:
    return tuple(tuple(range(1, len(task.class_names))) for task in record.tasks)


def _tasks(plan: Plan, record: Record) -> list[Task]:
    """The tasks of a sequence, as far as outputs and pictures go.

    Raises:
        RecordError: its settings name other tasks.
    """
    if [task.name for task in plan.settings.stream.tasks] != [task.name for task in record.tasks]:
        raise RecordError("the record's 'tasks' are not those of its 'settings.stream.tasks'", "run it again")
    return [
        settings.cls.build(
            settings.name,
            settings.values,
            Context(tuple(known.class_names[1:]), known.class_names[:1] != ["other"], judge=False),
        )
        for settings, known in zip(plan.settings.stream.tasks, record.tasks, strict=True)
    ]
