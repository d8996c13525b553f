"""Stop a method on a tiny stream in the middle of step 1, go on with a new one, and compare."""

import contextlib
import copy
import io
from typing import Any

import torch
from torch import Tensor, nn

from densecl.check.findings import added_to, trying
from densecl.check.tiny import tiny_loop
from densecl.runner.checkpoint import Point, go_on
from densecl.runner.methods import Method
from densecl.streams.scenario import Scenario
from densecl.tensors import same_tensors
from densecl.training.loop import Loop


class Stop:
    """The files, in memory, of a run that is stopped in the middle of step 1."""

    def __init__(self, loop: Loop):
        self.loop, self.point = loop, Point(0, None, None, None)
        self.attributes: dict[str, dict[str, Any]] = {}  # of strategy and plugins then
        loop.after_epoch = self._keep

    def step_finished(self) -> None:
        """Step 0 is trained: its weights and the method's state are kept."""
        if self.loop.step == 0:
            with contextlib.suppress(Exception):  # what cannot be saved is reported elsewhere
                weights, state = _kept(dict(self.loop.network.state_dict())), _kept(self.loop.method_state())
                self.point, self.attributes = Point(1, weights, state, None), _attributes(self.loop)

    def _keep(self) -> None:
        if self.loop.step == 1 and self.loop.epoch == 1 and self.point.finished:
            with contextlib.suppress(Exception):
                self.point = self.point._replace(state=_kept(self.loop.state()))
                self.attributes = _attributes(self.loop)


def check_resume(method: Method, scenario: Scenario, stop: Stop) -> list[str]:
    """Go on from a stop with a new method; say what was lost where that ends with other weights."""
    if not stop.point.finished:
        return []
    classes, findings = [part.cls for part in method.parts], list[str]()
    with added_to(findings), trying("going on after a stop in step 1", *classes):
        loop = _new(method, scenario, stop)
        loop.train(scenario.experiences[1:])
        if not same_tensors(stop.loop.network.state_dict(), loop.network.state_dict()):
            findings.append("going on after a stop in step 1 ends with other weights than training at one go")
    if not findings:
        return []
    loop = _new(method, scenario, stop)
    with added_to([]), trying("", *classes):
        loop.begin(scenario.experiences[1])
    now = _attributes(loop)
    lost = [
        f"{owner}.{name}"
        for owner, values in stop.attributes.items()
        for name, value in values.items()
        if name not in now[owner] or not _equal(value, now[owner][name])
    ]
    advice = "keep what later iterations need in state_dict, and take it back in load_state_dict"
    return [f"{findings[0]}; {', '.join(lost) if lost else 'no attribute'} was lost: {advice}"]


def _new(method: Method, scenario: Scenario, stop: Stop) -> Loop:
    """A loop with a new network and a new method, at the point of the stop."""
    loop = tiny_loop(method, scenario)
    go_on(loop, copy.deepcopy(stop.point), lambda _text: None)
    return loop


def _kept(state: Any) -> Any:
    """A state after it was written and read."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _attributes(loop: Loop) -> dict[str, dict[str, Any]]:
    """Copies of the attributes of strategy and plugins that hold values."""
    owners = {type(owner).__name__: owner for owner in (loop.strategy, *loop.plugins)}
    return {
        name: {key: copy.deepcopy(value) for key, value in vars(owner).items() if _is_value(value)}
        for name, owner in owners.items()
    }


def _is_value(value: Any) -> bool:
    if isinstance(value, dict | list | tuple | set):
        return all(map(_is_value, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, Tensor | nn.Module | bool | int | float | str)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        return _equal(dict(one.state_dict()), dict(other.state_dict()))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and bool(one == other)
