"""Heads whose scores are a linear map, solved in closed form, of randomly expanded features."""

from collections.abc import Sequence

from torch import Tensor

from densecl.losses.ridge import expand
from densecl.strategies.tools.heads import ChannelHeads


class RidgeHeads(ChannelHeads):
    """Heads that step 0 trains, and scores in their place once there is a solution; later steps bring no weights.

    Expansion and solution are no part of the state dict, which is that of plain training.
    """

    matrix: Tensor  # (D, E)
    solution: Tensor  # (E, C), empty before the first one

    def __init__(self, channels: int, auxiliary_channels: Sequence[int], matrix: Tensor):
        super().__init__(channels, auxiliary_channels)
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("solution", matrix.new_zeros(0, 0), persistent=False)

    def channels_of(self, outputs: int, first: bool) -> Sequence[int]:
        """Only the first step's outputs are modules."""
        return (outputs,) * first

    def forward(self, decoded: Tensor, auxiliary: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Scores (B, C, h, w) of (B, D, h, w); before the first solution see `Heads.forward`."""
        if not len(self.solution):
            return super().forward(decoded, auxiliary)
        scores = expand(decoded, self.matrix) @ self.solution  # (B, h w, C)
        return (scores.transpose(1, 2).unflatten(2, decoded.shape[2:]),)
