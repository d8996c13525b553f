"""The first step, trained once: methods whose step 0 is plain supervised training load it from one another.

The key is a hash of content, never of names: all that could change a bit of the weights is in it.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import densecl
from densecl.errors import DataError, RunError
from densecl.files import locked
from densecl.runner.plan import Plan
from densecl.strategies.base import Plugin
from densecl.streams.scenario import Scenario
from densecl.tensors import read_tensors, save_tensors
from densecl.training import distributed
from densecl.training.loop import Loop

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow")


class FirstStep(NamedTuple):
    """Step 0: iterations trained by this run, seconds of its training (by any run), True if it was loaded."""

    iterations: int
    seconds: float
    loaded: bool


def may_share(plan: Plan) -> bool:
    """True if step 0 is plain supervised training: the strategy says so, and every plugin."""
    strategy, plugins = plan.method.strategy, (part.cls for part in plan.method.plugins)
    shared = strategy.cls.shares_first_step(strategy.values)  # type: ignore[attr-defined]
    return shared and all(issubclass(cls, Plugin) and cls.first_step == "shared" for cls in plugins)


def train_or_load(plan: Plan, loop: Loop, train: Callable[[], None], say: Callable[[str], None]) -> FirstStep:
    """Load step 0 from the results folder, or train it and put it there; wait for another run that is doing so."""
    scenario, experience = loop.scenario, loop.scenario.experiences[0]
    path = plan.output / ".shared" / f"{first_step_key(plan, scenario)}.safetensors"
    lock, waiting = path.with_suffix(".lock"), "waiting for another run to train the first step, which both share"
    with locked(lock, lambda: say(waiting), f".{path.name}.*") if distributed.is_main() else contextlib.nullcontext():
        # a run that was killed inside its own first step goes on with it: its record must not depend on the kill
        loaded = None if loop.resuming else distributed.from_main(lambda: _read(path, say))
        if loaded is not None:
            tensors, seconds = loaded
            say(f"the first step was trained before: loaded {path}")
            loop.enter(experience)
            loop.network.load_state_dict(tensors)
            loop.finish(experience)
            return FirstStep(0, seconds, loaded=True)
        start = time.perf_counter()
        try:
            train()
        except DataError:  # nothing stays of a run that could not begin
            lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others are there
                path.parent.rmdir()
            raise
        seconds = time.perf_counter() - start
        if distributed.is_main():
            save_tensors(loop.network.state_dict(), path, _bound(path) | {"seconds": repr(seconds)})
        return FirstStep(loop.iterations, seconds, loaded=False)


def first_step_key(plan: Plan, scenario: Scenario) -> str:
    """Hash over all that decides the weights after step 0."""
    s = plan.settings
    device, task = torch.device(s.device), scenario.stream.tasks[0]
    images = scenario.experiences[0].images
    reader = scenario.training.readers[0]
    content = {
        "images": [Path(reader.image_files[i]).name for i in images.indices],
        "indices": hashlib.sha256(images.indices.tobytes()).hexdigest(),
        "labels": images.table.tolist(),
        "data": s.data.model_dump(mode="json", exclude={"root"}),
        "training": s.training.model_dump(mode="json", exclude={"later", "batchnorm"}),  # both act after step 0
        "backbone": [plan.backbone_name, plan.backbone_by_content, *filter(None, [plan.backbone_source])],
        "seed": s.seed,
        "content": plan.train.content,
        "task": [task.kind, scenario.experiences[0].n_outputs, task.settings, scenario.stream.by_task],
        "name": task.name if scenario.stream.by_task else None,  # a head by task has its name
        "source": source_hash(),
        "methods": [source for source in (*(part.source for part in plan.method.parts), task.source()) if source],
        "libraries": [version(name) for name in LIBRARIES],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {torch.get_num_threads()}",
        "world": distributed.world(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]


@cache
def source_hash() -> str:
    """Hash of the whole package: a list of what trains step 0 would be wrong one day."""
    digest = hashlib.sha256()
    for path in sorted(Path(densecl.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _bound(path: Path) -> dict[str, str]:
    """The metadata of a shared first step's file."""
    return {"densecl": "1", "kind": "first step", "key": path.stem}


def _read(path: Path, say: Callable[[str], None]) -> tuple[dict[str, Tensor], float] | None:
    """Read the weights at `path` and the seconds of their training; None if that is impossible."""
    if not path.is_file():
        return None
    try:
        tensors, metadata = read_tensors(path, **_bound(path))
        return tensors, float(metadata["seconds"])
    except (RunError, KeyError, ValueError) as error:
        say(f"refused: {error}; the first step is trained again")
        return None
