"""What a task is: the one place that knows what outputs mean, so that strategies need not."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

KINDS = ("segmentation", "colorization", "style_transfer", "autoencoding")


class Prepared(NamedTuple):
    """What a network is trained on.

    Attributes:
        image: (B, 3, H, W) in 0..255, uint8 or floating: what the network sees, to be normalised.
        target: (B, H, W) int64 labels, 255 void, or (B, C, H, W) float32 in the unit of the outputs.
    """

    image: "Tensor"
    target: "Tensor"


class Picture(NamedTuple):
    """A sample to look at, (3, H, W) uint8 RGB each: what went in, what came out, what should have."""

    input: "Tensor"
    output: "Tensor"
    truth: "Tensor"


class Targets(Protocol):
    """What a loss needs of a batch (`training.batch.Batch` has it)."""

    @property
    def target(self) -> "Tensor":
        """Of `Prepared`."""
        ...

    @property
    def weight(self) -> "Tensor | None":
        """(B,) or (B, H, W) loss weights; None means 1."""
        ...


class Metrics(Protocol):
    """The scores of a task, gathered over batches.

    Attributes:
        sums: all that is gathered, one tensor on the CPU. Scores of several processes' images together are those of the
            sum of their `sums`: assign it, then `compute`.
    """

    sums: "Tensor"

    def update(self, output: "Tensor", image: "Tensor", target: "Tensor") -> None:
        """Count a batch.

        Args:
            output: (B, C, H, W) of the network; labels (B, H, W) also do for segmentation.
            image: (B, 3, H, W) uint8, as it was before `Task.prepare`.
            target: of `Task.prepare`.
        """
        ...

    def compute(self) -> dict[str, Any]:
        """The scores by name, as records keep them."""
        ...


@dataclass(frozen=True)
class Task:
    """What the network must output at a step.

    Attributes:
        name: names the task in records, such as `voc`.
        kind: one of `KINDS`; a strategy lists the kinds it can learn.
        primary: the metric by which the task is ranked.
        higher_is_better: its direction.
        has_background: whether output 0 is a class of its own or stands for "something of another step".
    """

    name: str
    kind: str
    primary: str
    higher_is_better: bool = True
    has_background: bool = True

    @property
    def outputs(self) -> int | None:
        """Channels of the head; None where classes arrive over time and the stream knows."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides losses and scores besides the kind, as plain values: for records and fingerprints."""
        return {}

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """Input and target from what the reader gives.

        Args:
            image: (B, 3, H, W) uint8 RGB, on any device.
            mask: (B, H, W) integer labels of that device; only segmentation looks at them.
        """
        raise NotImplementedError

    def loss(self, logits: "Tensor", batch: Targets) -> "Tensor":
        """The supervised loss: a scalar, mean over what the weights of the batch leave."""
        raise NotImplementedError

    def update_critic(
        self,
        logits: "Tensor",
        batch: Targets,
        *,
        share: "float | Tensor" = 1.0,
        reduce: "Callable[[Iterable[nn.Parameter]], None] | None" = None,
    ) -> None:
        """Once a training iteration, before `loss`: train what judges the outputs. Most tasks have nothing of that.

        Args:
            logits: of the network; no gradient goes back into them.
            batch: as for `loss`.
            share: of the images of the whole batch that this process holds.
            reduce: sums the gradients of these parameters over processes (`training.distributed.sum_gradients`).
        """

    def distillation(self, logits: "Tensor", teacher_logits: "Tensor") -> "Tensor":
        """How far outputs are from a teacher's, a scalar: the mean squared difference, where outputs are values."""
        return (logits.float() - teacher_logits.float()).square().mean()

    def metrics(self) -> Metrics:
        """An empty gathering of scores."""
        raise NotImplementedError

    def score(self, metrics: dict[str, Any]) -> float:
        """The primary metric out of a record's."""
        return number(metrics[self.primary])

    def forgetting(self, learnt: dict[str, Any], now: dict[str, Any]) -> float:
        """How much worse the primary metric is than when the task was learnt; positive is worse."""
        change = self.score(learnt) - self.score(now)
        return change if self.higher_is_better else -change

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """One sample to look at.

        Args:
            image: (3, H, W) uint8.
            output: (C, H, W) of the network.
            mask: (H, W).
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training of the task needs: a critic and its optimiser. Most tasks need nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def number(value: float | None) -> float:
    """A recorded score; not-a-number where a record has none."""
    return math.nan if value is None else float(value)
