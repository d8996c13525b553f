"""Elastic Weight Consolidation, for dense outputs."""

import torch
from torch import Tensor

from densecl.models.network import Output
from densecl.seeding import generator
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch, unkeyed


class EWC(Plugin):
    """Holds parameters that mattered for earlier steps by a quadratic penalty (Kirkpatrick et al., 2017, eq. 3).

    The importance is the diagonal of the empirical Fisher matrix: the mean over images of the squared gradient of an
    image's loss (mean cross-entropy, or that of the task), added up over steps. On a sequence of tasks the heads are
    left out: no later task changes them.
    """

    streams = frozenset({"classes", "tasks"})
    first_step = "shared"
    weight: float = 500.0  # lambda of eq. 3
    images: int = 200  # at most so many images a step estimate the importance

    def __init__(self, **values: object):
        super().__init__(**values)
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}

    def loss(self, strategy: Strategy, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor | None:
        """Half lambda times the sum of importance times squared distance to the previous step's last weights."""
        if not self.importance:
            return None
        parameters = dict(strategy.network.named_parameters())
        terms = [(f * (parameters[name] - self.anchor[name]).square()).sum() for name, f in self.importance.items()]
        return self.weight / 2 * torch.stack(terms).sum()

    def after_step(self, strategy: Strategy, experience: Experience) -> None:
        """Add the importance of this step and remember the weights."""
        network = strategy.network.eval()
        left_out = "heads." if strategy.stream.by_task else ()
        trained = ((name, p) for name, p in network.named_parameters() if p.requires_grad)
        parameters = {name: p for name, p in trained if not name.startswith(left_out)}
        n = len(experience.dataset)
        chosen = generator(strategy.seed, "fisher", experience.step).permutation(n)[: self.images].tolist()
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for position in chosen:
            image, target = experience.dataset[position]
            # in float32 also under mixed precision: squares of small gradients vanish in half precision
            single = unkeyed(image[None], target[None]).to(strategy.device)
            loss = strategy.task.loss(network(single.image).logits, single)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name].addcmul_(gradient, gradient, value=1 / len(chosen))
        for name, value in total.items():
            self.importance[name] = value + self.importance[name] if name in self.importance else value
        self.anchor = {name: p.detach().clone() for name, p in parameters.items()}

    def stored_bytes(self, strategy: Strategy) -> int:
        """Importance and anchor."""
        return sum(t.numel() * t.element_size() for t in (*self.importance.values(), *self.anchor.values()))

    def state_dict(self) -> dict[str, object]:
        """Importance and anchor by parameter."""
        return {"importance": self.importance, "anchor": self.anchor}

    def load_state_dict(self, state: dict) -> None:
        """Restore importance and anchor."""
        self.importance, self.anchor = dict(state["importance"]), dict(state["anchor"])
