"""What STAR keeps of learnt classes in place of their images: two kilobytes a class."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.models.network import Output
from densecl.strategies.base import Strategy
from densecl.strategies.tools import prototypes as of
from densecl.strategies.tools.pixel_counts import Setting, pixel_counts
from densecl.streams.scenario import Experience
from densecl.training import distributed
from densecl.training.precision import widened

MARGIN = 0.7  # between two probabilities, from which two networks agree on a class (Adapter: Zhu et al., AAAI 2025)
PARTS = ("prototypes", "spread", "lengths", "stored", "predicted")


class ClassStatistics:
    """Directions, their spread, lengths and numbers of places of the classes learnt so far.

    Attributes:
        prototypes: (K, D), of unit length. spread: (K, D). lengths: (2, K), mean and standard deviation.
        stored: (1 + K,) float64 places of background and of each class.
        predicted: (1 + C_old,) those that the teacher finds in the background of the step.
        setting: of the stream; see `fakes_per_iteration`.
    """

    def __init__(self, width: int, device: torch.device, setting: Setting):
        self.setting: Setting = setting
        self.prototypes, self.spread = torch.zeros(2, 0, width, device=device)
        self.lengths = torch.zeros(2, 0, device=device)
        self.stored = self.predicted = torch.zeros(1, dtype=torch.float64, device=device)

    @torch.no_grad()
    def look_ahead(self, strategy: Strategy, seen: Callable[[Output], Tensor]) -> None:
        """Count what the teacher finds in a step's background; `seen` gives labels (B, H, W) of an output."""
        counts = torch.zeros(strategy.n_old, dtype=torch.float64, device=strategy.device)
        for batch in strategy.batches("look-ahead"):
            output = strategy.loop.teach(batch.image)
            assert output is not None
            assert output.decoded is not None
            named = of.at_places(seen(output), output.decoded)[of.at_places(batch.target, output.decoded) == 0]
            counts += named.bincount(minlength=strategy.n_old)
        self.predicted = distributed.total(counts)

    @torch.no_grad()
    def remember(self, strategy: Strategy, experience: Experience, *, form: Literal["exact", "published"]) -> None:
        """Measure a step's classes in one augmented pass; published: spread about prototypes of the first classes."""
        network, new = strategy.network.eval(), experience.new_classes
        sums = torch.zeros(len(new), 2 * self.prototypes.shape[1] + 3, dtype=torch.float64, device=strategy.device)
        background = sums.new_zeros(1)
        for batch in strategy.batches("remember"):
            with strategy.loop.precision.autocast():
                decoded = widened(network(batch.image, None)).decoded
            assert decoded is not None
            label = of.at_places(batch.target, decoded)
            sums += of.moments(decoded, label, classes=new)
            background += (label == 0).sum()
        sums, background = distributed.total(sums), distributed.total(background)
        if strategy.step == 0:
            self.stored = torch.cat([background, sums[:, -1]])
        else:
            self.stored = pixel_counts(self.stored, self.predicted, sums[:, -1], n_new=len(new), setting=self.setting)
        own = of.directions_of(sums).float()
        self.prototypes = torch.cat([self.prototypes, own])
        centres = self.prototypes[: len(new)] if form == "published" else own
        self.spread = torch.cat([self.spread, of.spread_of(sums, centres).float()])
        self.lengths = torch.cat([self.lengths, of.lengths_of(sums).float()], 1)

    @torch.no_grad()
    def follow(self, strategy: Strategy, share: float) -> None:
        """Move old classes by a share of the change between teacher and network, where both name them in background.

        The spread grows by the size of the move.
        """
        network, old = strategy.network.eval(), range(1, strategy.n_old)
        change = torch.zeros(2, len(old), self.prototypes.shape[1], dtype=torch.float64, device=strategy.device)
        places = change.new_zeros(len(old))
        for batch in strategy.batches("follow"):
            before = strategy.loop.teach(batch.image, stride=None)
            with strategy.loop.precision.autocast():
                now = widened(network(batch.image, None))
            assert before is not None
            assert before.decoded is not None
            assert before.coarse is not None
            assert now.decoded is not None
            assert now.coarse is not None
            named = of.agreed(now.coarse, before.coarse, margin=MARGIN)
            label = torch.where(of.at_places(batch.target, named) == 0, named, 0)
            for k, maps in enumerate((before.decoded, now.decoded)):
                sums, counts = of.class_sums(F.normalize(maps.double(), dim=1), label, classes=old)
                change[k] += sums
            places += counts
        change, places = distributed.total(change), distributed.total(places)
        moved = share * ((change[1] - change[0]) / places.clamp(min=1).unsqueeze(1)).float()
        self.prototypes, self.spread = self.prototypes + moved, self.spread + moved.abs()

    def draw(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """(N, D) fake features of the classes `rows` (N,): a direction about the prototype, lengths per dimension."""
        noise = torch.randn(2, len(rows), self.prototypes.shape[1], generator=rng, device=rows.device)
        mean, deviation = self.lengths[:, rows].unsqueeze(2)
        return (self.prototypes[rows] + self.spread[rows] * noise[0]) * (deviation * noise[1] + mean)

    @property
    def nbytes(self) -> int:
        """Bytes kept from step to step."""
        return sum(getattr(self, name).nbytes for name in PARTS[:-1])

    def state_dict(self) -> dict[str, Tensor]:
        """All of it."""
        return {name: getattr(self, name) for name in PARTS}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        for name in PARTS:
            setattr(self, name, state[name])
