"""From a plan to the objects of a run: scenario, network, strategy."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from densecl.data import transforms
from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset
from densecl.errors import SettingError
from densecl.models import build_backbone
from densecl.models.network import Network
from densecl.runner.methods import build_plugins
from densecl.runner.plan import Plan
from densecl.runner.sequence import evaluation_transform, sources
from densecl.seeding import derive
from densecl.settings.recipe import RunSettings
from densecl.strategies.base import Strategy
from densecl.streams.protocol import Steps
from densecl.streams.scenario import Scenario, class_incremental, domain_incremental, task_sequence
from densecl.training.loader import choose_workers
from densecl.training.loop import Events

MEMORY = 256 * 2**20  # bytes of decoded images that are kept rather than decoded every epoch


def build_scenario(plan: Plan, progress: Callable[[int, int], None] | None = None) -> tuple[Scenario, int]:
    """The stream, and how many worker processes load it; `progress` hears (done, total) while masks are scanned.

    The test stream's masks are scanned too: a broken one must not end a run at its first evaluation.

    Raises:
        DataError, SettingError: see `class_incremental`.
    """
    s = plan.settings
    if s.stream.kind == "tasks":
        return _build_sequence(plan, progress)
    train, test = plan.train, plan.test
    in_memory = s.loader.workers in (None, 0) and train.fits_in_memory(MEMORY) and test.fits_in_memory(MEMORY)
    if in_memory:
        train, test = train.cached(), test.cached()
    class_index(test, progress=progress)
    training = s.training
    crop = None if training.crop == "full" else training.crop
    common: dict[str, Any] = {
        "labels": s.stream.labels,
        "joint": plan.method.strategy.cls.joint,  # type: ignore[attr-defined]
        "validation": s.data.validation,
        "validation_seed": s.data.validation_seed,
        "augment": transforms.augmentation(training.augmentation, crop, training.scale),
        "plain": None if crop is None else transforms.ResizeCenterCrop(crop),
        "evaluate": evaluation_transform(s.evaluation),
        "mean": s.data.mean,
        "std": s.data.std,
        "seed": s.seed,
        "presence": class_index(train, progress=progress),
    }
    if s.stream.kind == "domain":
        scenario = domain_incremental(train, test, domains_of(train, plan.steps), **common)
    else:
        setting = {"setting": s.stream.setting, "partition_seed": s.stream.partition_seed}
        scenario = class_incremental(train, test, plan.steps, by_task=plan.method.told, **setting, **common)
    return scenario, choose_workers(s.loader.workers, in_memory)


def _build_sequence(plan: Plan, progress: Callable[[int, int], None] | None) -> tuple[Scenario, int]:
    """As `build_scenario`, of tasks."""
    s = plan.settings
    made = sources(s, plan.readers, progress)
    readers = [reader for source in made for reader in (source.train, source.test)]
    in_memory = s.loader.workers in (None, 0) and all(reader.fits_in_memory(MEMORY // len(made)) for reader in readers)
    if in_memory:
        made = [replace(source, train=source.train.cached(), test=source.test.cached()) for source in made]
    scenario = task_sequence(
        made,
        validation=s.data.validation,
        validation_seed=s.data.validation_seed,
        mean=s.data.mean,
        std=s.data.std,
        seed=s.seed,
    )
    return scenario, choose_workers(s.loader.workers, in_memory)


def domains_of(train: DenseDataset, steps: Steps) -> list[np.ndarray]:
    """Indices of the images of each step of a domain-incremental stream.

    Raises:
        SettingError: the data set has no domains, or other ones than the split counts.
    """
    domains, counted = list(train.domains().values()), sum(map(len, steps))
    if not domains:
        raise SettingError(f"stream.kind=domain: {train.name} has no domains", "cityscapes has its cities")
    if len(domains) != counted:
        raise SettingError(
            f"the split counts {counted} cities and {train.root} has {len(domains)}",
            "get all of Cityscapes' fine annotations",
        )
    return [np.sort(np.concatenate([domains[number - 1] for number in step])) for step in steps]


def build_network(settings: RunSettings) -> Network:
    """The network before step 0, initialised from the run's seed; on the CPU, so that all devices start alike."""
    torch.manual_seed(derive(settings.seed, "network"))
    return Network(build_backbone(settings.backbone, settings.backbone_values))


def build_strategy(
    plan: Plan, scenario: Scenario, network: Network, workers: int = 0, events: Events | None = None
) -> Strategy:
    """The strategy with its plugins and hyper-parameters."""
    s = plan.settings
    plugins = build_plugins(plan.method)
    strategy = plan.method.strategy.cls(
        network=network,
        scenario=scenario,
        settings=s.training,
        seed=s.seed,
        device=s.device,
        workers=workers,
        plugins=plugins,
        events=events,
    )
    strategy.configure(plan.method.strategy.resolved())
    return strategy


def is_resumable(plan: Plan) -> bool:
    """Whether every plugin can give and take its state."""
    return not any(part.stock for part in plan.method.plugins)
