"""Loops that trained steps of the tiny stream, and what tests of methods take from them."""

from typing import Any

from torch import Tensor

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.models.network import Network
from densecl.runner.methods import parse_method
from densecl.training.batch import Batch
from densecl.training.loop import Loop


def trained(text: str, steps: int = 1, network: Network | None = None, **changes: Any) -> Loop:
    """The loop of a method after some steps; `changes` are of the training's settings."""
    training = TRAINING.model_copy(update=changes)
    loop = tiny_loop(parse_method(text), tiny_scenario(), network or tiny_network(), training)
    loop.train(loop.scenario.experiences[:steps])
    return loop


def next_batch(loop: Loop, step: int) -> Batch:
    """Begin a step, and prepare its first batch."""
    loop.begin(loop.scenario.experiences[step])
    loop.begin_epoch()
    return loop.prepared(next(iter(loop.loader)), loop.task)


def state(loop: Loop) -> dict[str, Tensor]:
    """A copy of the network's state."""
    return {name: value.clone() for name, value in loop.network.state_dict().items()}
