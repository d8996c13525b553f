"""Elastic Weight Consolidation, for dense outputs."""

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from densecl.errors import SettingError
from densecl.models.network import Output
from densecl.seeding import generator
from densecl.strategies.base import Plugin, Strategy, Weight
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch, unkeyed

NEW = 0.9  # share of the latest batch in the running average


class EWC(Plugin):
    """Holds parameters that mattered for earlier steps by a quadratic penalty (Kirkpatrick et al., 2017, eq. 3).

    The importance is the diagonal of the empirical Fisher matrix, from gradients of the task's loss (cross-entropy, for
    segmentation) after a step. On a sequence of tasks the heads are left out: no later task changes them.

    published: a running average of the squared gradients of batches, which goes on from step to step, scaled to 0..1 in
    each tensor; the weight of 500 that Cermelli et al. (CVPR 2020) compare with belongs to it. exact: the mean over
    images of the squared gradient of an image's loss, added up over steps, with half the weight.
    """

    streams = frozenset({"classes", "tasks"})
    first_step = "shared"
    weight: Weight = 500.0  # lambda of eq. 3; the exact form needs a thousand times as much
    images: Annotated[int, Field(ge=1)] = 200  # that estimate the importance, at most, in each step
    form: Literal["published", "exact"] = "published"

    def __init__(self, **values: object):
        super().__init__(**values)
        self._remember({}, {})

    def configure(self, strategy: Strategy) -> None:
        """Refuse a weight that a step of SGD overshoots with: the curvature is twice the weight at importance 1."""
        settings = strategy.settings
        if self.form == "exact" or settings.optimizer != "sgd":
            return
        rate, momentum = settings.rate(1), settings.momentum
        limit = (1 + momentum) / (1 + 2 * momentum) / rate  # of gradient descent with Nesterov's momentum
        if self.weight > limit:
            raise SettingError(
                f"ewc(weight={self.weight:g}) diverges under SGD at the rate of {rate:g} after step 0",
                f"give ewc a weight of at most {limit:.2g}, or set training.later.lr to at most "
                f"{limit * rate / self.weight:.2g}",
            )

    def loss(self, strategy: Strategy, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor | None:
        """The weight times the sum of importance times squared distance to the previous step's last weights."""
        if not self.importance:
            return None
        parameters = dict(strategy.network.named_parameters())
        terms = [(f * (parameters[name] - self.anchor[name]).square()).sum() for name, f in self.scaled.items()]
        return (self.weight if self.form == "published" else self.weight / 2) * torch.stack(terms).sum()

    def after_step(self, strategy: Strategy, experience: Experience) -> None:
        """Measure the importance of parameters in this step and remember the weights."""
        network = strategy.network.eval()
        left_out = "heads." if strategy.stream.by_task else ()
        trained = ((name, p) for name, p in network.named_parameters() if p.requires_grad)
        parameters = {name: p for name, p in trained if not name.startswith(left_out)}
        old = {name: self.importance[name] for name in parameters if name in self.importance}
        new = {name: torch.zeros_like(p) for name, p in parameters.items()}
        if self.form == "published":
            new |= old
        batches, count = self._batches(strategy, experience)
        keep, add = (1 - NEW, NEW) if self.form == "published" else (1.0, 1 / count)
        for batch in batches:
            # in float32 also under mixed precision: squares of small gradients vanish in half precision
            loss = strategy.task.loss(network(batch.image).logits, batch)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    new[name] = (new[name] * keep).addcmul_(gradient, gradient, value=add)
        if self.form == "exact":
            new |= {name: new[name] + value for name, value in old.items()}
        self._remember(new, {name: p.detach().clone() for name, p in parameters.items()})

    def _batches(self, strategy: Strategy, experience: Experience) -> tuple[Iterable[Batch], int]:
        """Batches that the importance is measured on, and their number; each process sees all of them."""
        if self.form == "published":
            count = -(-min(self.images, len(experience.dataset)) // strategy.settings.batch)
            return islice(strategy.batches("fisher", augment=False, whole=True), count), count
        n = len(experience.dataset)
        chosen = generator(strategy.seed, "fisher", experience.step).permutation(n)[: self.images].tolist()
        pairs = (experience.dataset[position] for position in chosen)
        return (unkeyed(image[None], target[None]).to(strategy.device) for image, target in pairs), len(chosen)

    def _remember(self, importance: dict[str, Tensor], anchor: dict[str, Tensor]) -> None:
        self.importance, self.anchor = importance, anchor
        published = self.form == "published"
        self.scaled = {name: scaled(f) for name, f in importance.items()} if published else importance

    def stored_bytes(self, strategy: Strategy) -> int:
        """Importance and anchor."""
        return sum(t.numel() * t.element_size() for t in (*self.importance.values(), *self.anchor.values()))

    def state_dict(self) -> dict[str, object]:
        """Importance and anchor by parameter."""
        return {"importance": self.importance, "anchor": self.anchor}

    def load_state_dict(self, state: dict) -> None:
        """Restore importance and anchor."""
        self._remember(dict(state["importance"]), dict(state["anchor"]))


def scaled(importance: Tensor) -> Tensor:
    """The values moved and stretched to 0..1; zeros where all are equal."""
    if not importance.numel():
        return importance
    low, high = importance.aminmax()
    return (importance - low) / (high - low).clamp(min=torch.finfo(importance.dtype).tiny)
