"""Build the objects of a run from its plan: scenario, network, loop."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from densecl.data import transforms
from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.data.geometry import LABELS, Geometry
from densecl.errors import DataError, DenseCLError, RecordError, RunError, SettingError
from densecl.models.network import Backbone, Network
from densecl.records.record import Record
from densecl.runner.checkpoint import AGAIN, Checkpoints, load_weights
from densecl.runner.methods import build_plugins
from densecl.runner.plan import Plan, task_context
from densecl.seeding import seed_torch
from densecl.settings.backbone import build_backbone
from densecl.settings.recipe import RunSettings, TrainingSettings
from densecl.settings.task_recipe import Size
from densecl.streams.protocol import Steps
from densecl.streams.scenario import (
    Scenario,
    TaskSource,
    Transforms,
    class_incremental,
    domain_incremental,
    normalisation,
    task_sequence,
)
from densecl.streams.stream import Stream, class_stream, task_stream
from densecl.tasks import Context
from densecl.training.failures import worded
from densecl.training.loader import choose_workers
from densecl.training.loop import Events, Loop

MEMORY = 256 * 2**20  # bytes of decoded images that are kept rather than decoded every epoch


def build_scenario(plan: Plan, progress: Callable[[int, int], None] | None = None) -> tuple[Scenario, int]:
    """Build the stream with its data; returned with the number of worker processes that load it.

    Masks are scanned, of which `progress` hears (done, total); those of the test stream too: a broken one must not end
    a run at its first evaluation.
    """
    s, readers = plan.settings, plan.readers
    fit = (reader.fits_in_memory(MEMORY // len(readers)) for pair in plan.labelled for reader in pair)
    in_memory = s.loader.workers in (None, 0) and all(fit)
    common: dict[str, Any] = {key: getattr(s.data, key) for key in ("validation", "validation_seed", "mean", "std")}
    common["seed"] = s.seed
    if plan.scenario is not None:
        samples = replace(plan.scenario.training, seed=s.seed)
        return replace(plan.scenario, training=samples), choose_workers(s.loader.workers, in_memory)
    workers = choose_workers(s.loader.workers, in_memory)
    if s.stream.kind == "tasks":
        return task_sequence(_sources(plan, in_memory, progress), **common), workers
    train, test = (reader.cached() if in_memory else reader for reader in readers[0])
    class_index(test, progress=progress)
    presence = class_index(train, progress=progress)
    common |= {
        "labels": s.stream.labels,
        "joint": plan.method.joint,
        "presence": presence,
        "transforms": _transforms(s.training, s.training.crop, s.evaluation.size),
    }
    if s.stream.kind == "domain":
        return domain_incremental(train, test, domains_of(train, plan.steps), **common), workers
    common |= {"setting": s.stream.setting, "partition_seed": s.stream.partition_seed, "by_task": plan.method.told}
    return class_incremental(train, test, plan.steps, **common), workers


def _sources(plan: Plan, in_memory: bool, progress: Callable[[int, int], None] | None) -> list[TaskSource]:
    """The tasks of a sequence with their readers and transforms; masks that a task looks at are scanned."""
    s, sources = plan.settings, []
    for task, pair, plain in zip(s.stream.tasks, plan.labelled, plan.readers, strict=True):
        context = task_context(s)
        if task.cls.needs_masks or task.cls.truth:
            for reader in pair:
                class_index(reader, progress=progress)
        if task.cls.needs_masks:
            context = replace(context, class_names=pair[0].class_names, has_background=pair[0].has_background)
        if task.cls.image_level:
            context = replace(context, class_names=_classes_of_images(task.name, *plain))
        built = task.cls.build(task.name, task.values, context)
        train, test = (reader.cached() if in_memory else reader for reader in pair)
        crop = s.training.crop if task.crop is None else task.crop
        size = s.evaluation.size if task.size is None else task.size
        moved = _transforms(s.training, crop, size, built.geometry())
        sources.append(TaskSource(built, train, test, moved, task.images or (1, 1)))
    return sources


def _classes_of_images(task: str, train: DenseDataset, test: DenseDataset) -> tuple[str, ...]:
    """The classes of whole images; DataError where training and test images have other ones."""
    own, other = train.image_classes, test.image_classes
    if own != other:
        name = next(iter(sorted({*own} ^ {*other})), own[0])
        fault = f"task '{task}': training images have {len(own)} classes and test images {len(other)}; see '{name}'"
        raise DataError(fault, "give both the same folders of classes")
    return own


def _transforms(
    training: TrainingSettings, crop: Any, evaluated: Size | Literal["full"], geometry: Geometry = LABELS
) -> Transforms:
    size = None if crop == "full" else crop
    return Transforms(
        augment=transforms.augmentation(training.augmentation, size, training.scale, geometry),
        plain=None if size is None else transforms.ResizeCenterCrop(size),
        evaluate=None if evaluated == "full" else transforms.ResizeCenterCrop(evaluated),
    )


def domains_of(train: DenseDataset, steps: Steps) -> list[np.ndarray]:
    """Indices of the images of each step of a domain-incremental stream."""
    domains, counted = list(train.domains().values()), sum(map(len, steps))
    if not domains:
        raise SettingError(f"stream.kind=domain: {train.name} has no domains", "cityscapes has its cities")
    if len(domains) != counted:
        raise SettingError(
            f"the split counts {counted} cities and {train.root} has {len(domains)}",
            "get all of Cityscapes' fine annotations",
        )
    return [np.sort(np.concatenate([domains[number - 1] for number in step])) for step in steps]


def recorded_stream(plan: Plan, record: Record) -> Stream:
    """The stream of a recorded run, without its data: a network can grow along it as it did."""
    s = plan.settings
    if record.tasks:
        if [task.name for task in s.stream.tasks] != [task.name for task in record.tasks]:
            raise RecordError("the record's 'tasks' are not those of its 'settings.stream.tasks'", "run it again")
        tasks, labels = [], []
        for settings, task in zip(s.stream.tasks, record.tasks, strict=True):
            whole, names = settings.cls.image_level, tuple(task.class_names)
            context = Context(names if whole else names[1:], names[:1] != ("other",), judge=False)
            tasks.append(settings.cls.build(settings.name, settings.values, context))
            labels.append(names if settings.cls.kind == "segmentation" else ())
        return task_stream(tasks, labels)
    return class_stream(
        s.data.name,
        record.planned_steps or [step.new_classes for step in record.steps],
        record.class_names,
        has_background=record.has_background,
        setting="domain" if s.stream.kind == "domain" else s.stream.setting,
        labels=s.stream.labels,
        joint=plan.method.joint,
        by_task=plan.method.told,
    )


def build_network(settings: RunSettings, backbone: type[Backbone] | None = None) -> Network:
    """The network before step 0, initialised from the run's seed; on the CPU, so that all devices start alike.

    Without the class of a plan, the backbone is one of ours by its name, which may then come from a record. RunError
    where there is no memory for it.
    """
    seed_torch(settings.seed, "network")
    with worded(settings, making=True):
        return Network(build_backbone(backbone or settings.backbone, settings.backbone_values))


def build_loop(
    plan: Plan, scenario: Scenario | Stream, network: Network, workers: int = 0, events: Events | None = None
) -> Loop:
    """The loop with the strategy, its plugins and hyper-parameters; on a stream alone it can only predict."""
    s = plan.settings
    with_data = isinstance(scenario, Scenario)
    return Loop(
        plan.method.strategy.cls(**plan.method.strategy.resolved()),
        network,
        scenario.stream if with_data else scenario,
        normalisation(s.data.mean, s.data.std),
        s.training,
        scenario=scenario if with_data else None,
        plugins=build_plugins(plan.method),
        seed=s.seed,
        device=s.device,
        workers=workers,
        events=events,
        cache_gib=s.loader.cache_gib,
    )


def restored(plan: Plan, scenario: Scenario | Stream, folder: Path, step: int, run: str) -> Loop:
    """A run's loop on a stream of its steps, with or without data, and with the weights of a finished step."""
    settings = plan.settings
    if "weights" in settings.backbone_values:  # the kept weights replace them: do not download
        values = {**settings.backbone_values, "weights": "none"}
        settings = settings.model_copy(update={"backbone_values": values})
    loop = build_loop(plan, scenario, build_network(settings, plan.backbone))
    for entered in loop.stream.steps[: step + 1]:
        loop.enter(entered)
    load_weights(loop.network, folder, step, run)
    checkpoints = Checkpoints(folder, run)
    if checkpoints.step_path(step).is_file():  # a `predict` may depend on what the method remembers
        _restore_method(plan, loop, checkpoints.after_step(step), checkpoints.step_path(step))
    checkpoints.close()
    return loop


def _restore_method(plan: Plan, loop: Loop, state: dict[str, Any], path: Path) -> None:
    """Give the method what it remembers; RunError if that is another's. A class of the user's own fails as it fails."""
    try:
        loop.load_method_state(state["method"])
    except Exception as error:
        if isinstance(error, DenseCLError) or any(part.source for part in plan.method.parts):
            raise
        raise RunError(f"{path} does not hold what {plan.method.name} remembers", AGAIN) from error
