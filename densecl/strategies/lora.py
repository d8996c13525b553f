"""LoRA of convolutions: a task adds a matrix of low rank to each weight of the first task's network."""

from collections.abc import Collection
from typing import Annotated

from pydantic import Field
from torch import Tensor

from densecl.masking import added
from densecl.masking.added import LowRank
from densecl.masking.parametrized import HEADS, add_views, maskable
from densecl.seeding import derive
from densecl.strategies.norms import Added
from densecl.strategies.storage import formula_bytes
from densecl.streams.stream import Step


class LoRA(Added):
    """Low-rank adaptation (Hu et al., ICLR 2022) of every convolution and linear layer but the last.

    W + alpha / rank * up @ down, with `down` of (rank, inputs * kernel) and `up` of (outputs, rank): a convolution to
    `rank` channels and a 1x1 convolution behind it. `up` starts at zero, so a task starts as the first one. The sum is
    computed once when a task is shown. Normalisation and the head are each task's own.
    """

    kind = LowRank
    _formula = "lora"
    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 8.0

    def add(self, step: Step) -> Collection[Tensor]:
        """Give the task factors at every layer."""
        if step.step == 1:
            add_views(self.network, LowRank, HEADS, "adapt")
        start = added.low_rank_start(self.rank, derive(self.seed, "lora", step.step))
        added.begin(self.network, LowRank, step.task.name, start, scale=self.alpha / self.rank)
        return added.parameters(self.network, LowRank, step.task.name)

    def model_bytes(self) -> int:
        """Bytes by formula: rank * (rows + columns) of each weight as a matrix, for each task from the second on."""
        layers = [added.low_rank_shapes(m.weight.shape, self.rank) for m in maskable(self.network).values()]  # type: ignore[arg-type]
        numbers = sum(rows * columns for shapes in layers for rows, columns in shapes)
        return formula_bytes(self.network, self._formula, self.learnt, norms=self.banked, added=self.step * numbers)
