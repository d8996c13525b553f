"""A rehearsal before a run: what would end it late ends it now, in seconds and before anything is trained.

Every image is decoded, once. Then copies of network, method and tasks go through the run in small: a batch of real
images at their real sizes is augmented and learnt, all heads grow, test images of different sizes are evaluated. The
run itself does not know of it: its weights, statistics, tasks, caches and random numbers stay as they were.
"""

import contextlib
import copy
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from densecl.data.dataset import DenseDataset, Progress
from densecl.data.decoded import decode_images
from densecl.errors import DenseCLError, SettingError
from densecl.models.network import Network
from densecl.runner.build import build_loop
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import Method
from densecl.runner.plan import Plan
from densecl.settings.catalogue import line_of
from densecl.streams.samples import SampleKey, StepImages
from densecl.streams.scenario import Experience, Scenario, StepData, assembled
from densecl.training import distributed
from densecl.training.failures import worded
from densecl.training.loop import Loop

PIXELS = 2**19  # of a batch on a CPU, about
SIZES = 6  # test images that differ in size, beside the largest, the narrowest and the lowest one
STRIDE = 32  # sizes that differ by multiples of it are alike for a network

Size = tuple[int, int]  # height, width


def check_images(scenario: Scenario, scan: Callable[[str], Progress] | None = None) -> None:
    """Decode every test and training image; a damaged one is a DataError, and what was decoded once is not again.

    `scan` makes what hears (images done, images) of work with a name.
    """
    trained = zip(scenario.training.readers, (own.images.indices for own in scenario.experiences), strict=True)
    tested = ((own.reader, own.indices) for own in scenario.tests)
    for kind, images in (("test", tested), ("training", trained)):
        used: dict[int, tuple[DenseDataset, list[np.ndarray]]] = {}
        for reader, indices in images:
            used.setdefault(id(reader), (reader, []))[1].append(indices)
        for reader, indices in used.values():
            progress = scan(f"decoding {kind} images") if scan else None
            decode_images(reader, np.unique(np.concatenate(indices)), progress=progress)


def rehearse(plan: Plan, scenario: Scenario, network: Network) -> None:
    """Go through a run in small, with copies; a DenseCLError says what would end it."""
    with _undisturbed(), warnings.catch_warnings(), worded(plan.settings):
        warnings.simplefilter("ignore")
        few = _few(plan, scenario)
        _try_sizes(plan, few, copy.deepcopy(network))
        _go_through(build_loop(_shortened(plan, few), few, copy.deepcopy(network)), plan.settings.evaluation.batch)


def _go_through(loop: Loop, batch: int) -> None:
    """Train and evaluate the steps. Those of a stream of classes after step 1 are like it: their heads grow."""
    for experience in loop.scenario.experiences:
        if loop.stream.kind == "classes" and experience.step > 1:
            loop.enter(experience)
            continue
        _learn(loop, experience)
        try:
            evaluate(loop, experience.step, batch)
        except ValueError as error:  # of a metric, whose window is larger than an image
            fault = f"step {experience.step} cannot be evaluated: {error}"
            raise SettingError(fault, "choose another evaluation.size") from error


def _learn(loop: Loop, experience: Experience) -> None:
    """Train a step as the loop does, whatever becomes of the loss of a few images."""
    loop.begin(experience)
    loop.guard.limit = 2**31
    while loop.epoch < loop.epochs:
        loop.begin_epoch()
        for batch in loop.loader:
            loop.update(batch)
        loop.epoch += 1
    loop.finish(experience)


def _shortened(plan: Plan, few: Scenario) -> Plan:
    """The plan with an iteration a step, and without plugins that take long to prepare."""
    training = plan.settings.training
    later = training.later.model_copy(update={"epochs": None, "iterations": None})
    batch = max(2, *(len(experience.images.indices) for experience in few.experiences))
    once = {"iterations": 1, "later": later, "batch": batch, "compile": False}
    plugins = tuple(part for part in plan.method.plugins if getattr(part.cls, "rehearsed", True))
    loader = plan.settings.loader.model_copy(update={"cache_gib": 0.0})  # no features are kept
    settings = plan.settings.model_copy(update={"training": training.model_copy(update=once), "loader": loader})
    return replace(plan, settings=settings, method=Method(plan.method.strategy, plugins))


# ---- images


def _few(plan: Plan, scenario: Scenario) -> Scenario:
    """The scenario with a batch of training images in each step, and test images of different sizes."""
    data, stream = [], copy.deepcopy(scenario.stream)  # tasks may learn too
    samples = scenario.training
    for experience, reader, transforms in zip(scenario.experiences, samples.readers, samples.transforms, strict=True):
        if transforms.plain is None:
            _check_one_size(reader, experience.images.indices)
        count = _batch(plan, samples[SampleKey(experience.step, 0, experience.step, 0)].image.shape[1:])
        images = StepImages(experience.images.indices[:count], experience.images.table)
        data.append(StepData(reader, images, experience.presence[:count], transforms))
    tests = [replace(own, indices=_different(own.reader, own.indices, own.transform is None)) for own in scenario.tests]
    return assembled(
        stream, data, tests, scenario.normalisation, samples.seed, scenario.fingerprint, later=scenario.later
    )


def _batch(plan: Plan, size: Sequence[int]) -> int:
    """Images of a batch: all of it on a GPU, whose memory must hold them; fewer large ones on a CPU."""
    training = plan.settings.training
    if not plan.settings.device.startswith("cpu"):
        return training.batch
    least = 2 * training.accumulation * distributed.world()
    return min(training.batch, max(least, PIXELS // (size[0] * size[1])))


def _check_one_size(reader: DenseDataset, indices: np.ndarray) -> None:
    """Refuse images of several sizes that would be trained on as they are."""
    sizes = [reader.image_size(int(i)) for i in indices]
    other = next((k for k, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        named = [f"{Path(reader.image_files[indices[k]]).name} has {_pixels(sizes[k])}" for k in (0, other)]
        raise SettingError(
            f"training.crop=full takes images as they are, in batches of one size, and {', '.join(named)} pixels",
            "name a crop, such as training.crop=256",
        )


def _different(reader: DenseDataset, indices: np.ndarray, as_they_are: bool) -> np.ndarray:
    """Images of sizes that differ for a network: the largest, narrowest and lowest, and some between."""
    if not as_they_are:
        return indices[:1]
    sizes = {int(i): reader.image_size(int(i)) for i in indices}
    extremes = [max(sizes, key=lambda i: sizes[i][0] * sizes[i][1])]
    extremes += [min(sizes, key=lambda i, side=side: sizes[i][side]) for side in (0, 1)]
    others = {(height % STRIDE, width % STRIDE): i for i, (height, width) in sizes.items()}
    return np.array(sorted({*extremes, *[*others.values()][:SIZES]}))


def _pixels(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


# ---- network


def _try_sizes(plan: Plan, few: Scenario, network: Network) -> None:
    """Refuse a backbone that fails on images as large as those in training or evaluation."""
    device, tried = torch.device(plan.settings.device), dict[tuple[Size, bool], str]()
    for experience in few.experiences:
        height, width = few.training[SampleKey(experience.step, 0, experience.step, 0)].image.shape[1:]
        tried[(height, width), True] = "training.crop"
    for samples in few.tests:
        for position in range(len(samples)):
            height, width = samples[position].image.shape[1:]
            tried[(height, width), False] = "evaluation.size"
    backbone = network.to(device).backbone
    for (size, training), setting in tried.items():
        noise = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
        try:
            with torch.no_grad():
                backbone.train(training)(noise)
        except (DenseCLError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # encoders of timm raise what they like
            encoder = plan.settings.backbone_values.get("encoder")
            name = f"{plan.backbone_name}(encoder={encoder})" if encoder else plan.backbone_name
            own = Path(plan.settings.backbone.rpartition(":")[0])
            line = f" ({own.name}{line_of(error, own.resolve())})" if own.suffix else ""
            reason = " ".join(str(error).split())[:200]
            taken = _sides_taken(backbone, max(size))
            advice = f"choose another {'encoder' if encoder else 'backbone'} or {setting}"
            raise SettingError(
                f"the backbone {name} fails on images of {_pixels(size)} pixels{line}" + (f": {reason}" * bool(reason)),
                f"it takes squares of {', '.join(map(str, taken))}: {advice}" if taken else advice,
            ) from error


def _sides_taken(backbone: nn.Module, near: int) -> list[int]:
    """Sides of square images that a backbone takes, of some near the refused ones and those of its pretrained encoder.

    Nothing is computed.
    """
    own = getattr(getattr(backbone, "encoder", None), "side", None) or STRIDE
    first = -(-near // STRIDE)
    sides = {STRIDE * (first + k) for k in range(4)} | {own * k for k in range(1, 4)}
    taken = list[int]()
    with contextlib.suppress(Exception):  # one that cannot be copied or moved says nothing
        traced = copy.deepcopy(backbone).to("meta").eval()
        for side in sorted(sides - {near}):
            with contextlib.suppress(Exception), torch.no_grad():
                traced(torch.empty(2, 3, side, side, device="meta"))
                taken.append(side)
    return taken


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Give all generators of random numbers their states back."""
    states: Any = random.getstate(), np.random.get_state()  # noqa: NPY002 (that of Avalanche's plugins)
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
