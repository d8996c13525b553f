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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

import densecl
from densecl.errors import DataError, RunError, SettingError
from densecl.files import locked
from densecl.runner import proof
from densecl.runner.methods import Part
from densecl.runner.objects import scenario_content
from densecl.runner.plan import Plan
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.scenario import Experience, Scenario
from densecl.tensors import read_tensors, save_tensors
from densecl.training import distributed
from densecl.training.features import fix
from densecl.training.loop import Loop

if TYPE_CHECKING:
    from densecl.runner.given import Given

FOLDER = ".shared"  # of a results folder
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow")


class FirstStep(NamedTuple):
    """Step 0: iterations trained by this run, seconds of its training (by any run), True if it was loaded."""

    iterations: int
    seconds: float
    loaded: bool


def may_share(plan: Plan) -> bool:
    """True if step 0 is plain supervised training: strategy and plugins say so, or `densecl check` has shown it."""
    code = source_hash()
    return all(_says_so(part) or proof.proved(part, code) for part in plan.method.parts)


def _says_so(part: Part) -> bool:
    if issubclass(part.cls, Strategy):
        return part.cls.shares_first_step(part.values)
    return issubclass(part.cls, Plugin) and part.cls.first_step == "shared"


def check_given(plan: Plan) -> None:
    """Refuse a given first step where step 0 is more than plain training of classes."""
    if plan.first is None:
        return
    if plan.settings.stream.kind == "tasks" or plan.method.told or plan.method.joint:
        raise SettingError(
            f"--first with {plan.method.name} on {plan.settings.benchmark}",
            "a first step is given to a stream of classes with one head",
        )
    if not may_share(plan):
        fault = f"--first: {plan.method.name} trains its first step in a way of its own, and a file has a plain one"
        raise SettingError(fault, "leave out --first, or use a method such as mib")


def train_or_load(plan: Plan, loop: Loop, train: Callable[[], None], say: Callable[[str], None]) -> FirstStep:
    """Load step 0 from the results folder, or train it and put it there; wait for another run that is doing so."""
    scenario, experience = loop.scenario, loop.scenario.experiences[0]
    content = first_step_content(plan, scenario)
    path = plan.output / FOLDER / f"{key_of(content)}.safetensors"
    lock, waiting = path.with_suffix(".lock"), "waiting for another run to train the first step, which both share"
    with locked(lock, lambda: say(waiting), f".{path.name}.*") if distributed.is_main() else contextlib.nullcontext():
        # a run that was killed inside its own first step goes on with it: its record must not depend on the kill
        loaded = None if loop.resuming else distributed.from_main(lambda: _read(path, say))
        if loaded is not None:
            tensors, seconds = loaded
            say(f"the first step was trained before: loaded {path}")
            loop.enter(experience)
            loop.network.load_state_dict(tensors)
            _conclude(loop, experience)
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
            classes = json.dumps(loop.stream.class_names[: experience.n_outputs])
            about = {"seconds": repr(seconds), "content": content, "benchmark": plan.settings.benchmark}
            save_tensors(loop.network.state_dict(), path, {**_bound(path), **about, "classes": classes})
        return FirstStep(loop.iterations, seconds, loaded=False)


def take(first: "Given", loop: Loop) -> FirstStep:
    """Take a given network as that after step 0; DataError if it is another one, or of other classes."""
    from densecl.runner.given import load_first

    experience = loop.scenario.experiences[0]
    loop.enter(experience)
    seconds = load_first(first, loop.network, loop.stream.class_names[: experience.n_outputs])
    _conclude(loop, experience)
    return FirstStep(0, seconds, loaded=True)


def _conclude(loop: Loop, experience: Experience) -> None:
    """Finish a step 0 that was loaded, with nothing more to be trained than where it was trained."""
    if loop.settings.freezes(0):
        fix(loop.network.backbone)
    loop.finish(experience)


def first_step_key(plan: Plan, scenario: Scenario) -> str:
    """Hash over all that decides the weights after step 0."""
    return key_of(first_step_content(plan, scenario))


def key_of(content: str) -> str:
    """The key of a first step by what `first_step_content` says."""
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def first_step_content(plan: Plan, scenario: Scenario) -> str:
    """All that decides the weights after step 0, as JSON."""
    s = plan.settings
    task = scenario.stream.tasks[0]
    later = {"later", "batchnorm", *(() if s.training.freezes(0) else ("cache_features",))}  # act after step 0
    images = scenario.experiences[0].images
    reader = scenario.training.readers[0]
    names = "\n".join(Path(reader.image_files[i]).name for i in images.indices)
    content = {
        "images": hashlib.sha256(names.encode()).hexdigest(),
        "indices": hashlib.sha256(images.indices.tobytes()).hexdigest(),
        "labels": images.table.tolist(),
        "data": s.data.model_dump(mode="json", exclude={"root"}),
        "training": s.training.model_dump(mode="json", exclude=later),
        "backbone": [plan.backbone_name, plan.backbone_by_content, *filter(None, [plan.backbone_source])],
        "seed": s.seed,
        "content": plan.train.content,
        "task": [task.kind, scenario.experiences[0].n_outputs, task.settings, scenario.stream.by_task],
        "name": task.name if scenario.stream.by_task else None,  # a head by task has its name
        "methods": [source for source in (*_own_sources(plan), task.source()) if source],
        **surroundings(s.device),
    }
    if plan.scenario is not None:
        content["scenario"] = scenario_content(plan.scenario)
    return json.dumps(content, sort_keys=True, default=str)


def _own_sources(plan: Plan) -> list[str]:
    """The sources of classes of the user's own, but those whose first step was shown to be that of all others."""
    code = source_hash()
    return [part.source for part in plan.method.parts if not proof.proved(part, code)]


def surroundings(device_name: str) -> dict[str, Any]:
    """Collect the properties of this code and machine that decide bits."""
    device = torch.device(device_name)
    return {
        "source": source_hash(),
        "libraries": [version(name) for name in LIBRARIES],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {torch.get_num_threads()}",
        "world": distributed.world(),
    }


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
