"""Show on a tiny stream that the first step of a user's method is plain training, so that runs may share it."""

from dataclasses import replace

import torch
from torch import Tensor

from densecl.check.findings import Finding, trying
from densecl.check.tiny import TRAINING, tiny_backbone, tiny_loop, tiny_stream
from densecl.errors import SpecError
from densecl.losses import cross_entropy
from densecl.runner import proof
from densecl.runner.cost import computing_with
from densecl.runner.methods import Method, Part, parse_method
from densecl.runner.share import source_hash
from densecl.settings.reached import reached
from densecl.strategies.base import Plugin, Strategy
from densecl.tensors import same_tensors
from densecl.training.batch import Batch
from densecl.training.loop import Loop

# with weighted classes: a loss that forgets them would otherwise look plain
WEIGHTED = TRAINING.model_copy(update={"class_weights": 0.5})
# what a tiny run has in another number than a real one: a first step that looks at it cannot be tried here
BLIND = frozenset({"epoch", "epochs", "iterations", "planned", "settings", "scenario", "seed", "class_names"})


def prove(text: str) -> list[str]:
    """Note for later runs which parts of a method, of the user's own, have a plain first step; their names."""
    try:
        method = parse_method(text)
    except SpecError:  # a plugin alone
        method = parse_method(f"finetune+{text}")
    with computing_with(1):
        plain = [part for part in method.parts if part.source and not part.stock and _is_plain(part, method)]
    for part in plain:
        proof.note(part, source_hash())
    return [part.name for part in plain]


def _is_plain(part: Part, method: Method) -> bool:
    """True if plain training of step 0 can stand for that of a part: for its weights, and for what follows."""
    if (reached(part.cls).names or BLIND) & BLIND:
        return False
    base = plain_part(method.strategy)
    tried = Method(base, (part,)) if issubclass(part.cls, Plugin) else Method(part, ())
    kind = "classes" if "classes" in tried.strategy.cls.streams else "tasks"  # type: ignore[attr-defined]
    try:
        trained, weights = _after(tried, kind, 1), _after(Method(base, ()), kind, 1, like=tried)[0]
        if not same_tensors(trained[0], weights) or tried.joint:
            return False
        (own, state), (taken, other) = _after(tried, kind, 2), _after(tried, kind, 2, weights)
    except Finding:
        return False
    return same_tensors(own, taken) and _same(state, other)


def plain_part(strategy: Part) -> Part:
    """Plain cross-entropy training, told what a strategy is told."""

    class Plain(Strategy):
        oracle = strategy.cls.oracle  # type: ignore[attr-defined]  # on the same stream

        def pixel_loss(self, logits: Tensor, batch: Batch) -> Tensor:
            return cross_entropy(logits, batch.target, weight=batch.weight)

    return replace(strategy, cls=Plain, values={}, recipe=None)


def _after(
    method: Method, kind: str, steps: int, first: dict[str, Tensor] | None = None, like: Method | None = None
) -> tuple[dict[str, Tensor], object]:
    """Weights and the method's state after some steps, the first trained or, as a run does it, loaded.

    The network is one that the method `like` can use.
    """
    scenario = tiny_stream(method, kind)
    loop: Loop = tiny_loop(method, scenario, tiny_backbone(like or method), WEIGHTED)
    begin, *rest = scenario.experiences[:steps]
    with trying("step 0", *(part.cls for part in method.parts)):
        if first is None:
            loop.train([begin])
        else:
            loop.enter(begin)
            loop.network.load_state_dict(first)
            loop.finish(begin)
        loop.train(rest)
    return {name: tensor.clone() for name, tensor in loop.network.state_dict().items()}, loop.method_state()


def _same(mine: object, other: object) -> bool:
    """True for nested states of equal bits."""
    if isinstance(mine, Tensor) and isinstance(other, Tensor):
        return mine.dtype == other.dtype and torch.equal(mine, other)
    if isinstance(mine, dict) and isinstance(other, dict):
        return mine.keys() == other.keys() and all(_same(mine[key], other[key]) for key in mine)
    if isinstance(mine, list | tuple) and isinstance(other, list | tuple):
        return len(mine) == len(other) and all(map(_same, mine, other))
    return bool(mine == other)
