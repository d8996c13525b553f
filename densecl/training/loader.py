"""The order of samples, and the loader."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from densecl.data.class_index import usable_cores
from densecl.seeding import derive, generator
from densecl.streams.samples import LoadedSample, SampleKey, TrainingSamples
from densecl.training import distributed
from densecl.training.batch import Batch

Extend = Callable[[list[SampleKey], int, int], list[SampleKey]]


@dataclass(eq=False)
class EpochBatches(Sampler[list[SampleKey]]):
    """Batches of sample keys of one step of `n` images; the order of epoch e derives from (seed, step, e).

    The last batch may be smaller, but never holds a single sample, which BatchNorm cannot learn from: it joins the
    batch before, and a step of one image shows it twice. `extend`, (keys, epoch, iteration) -> keys, adds replayed
    samples.

    The batches are the same for any number of processes; each yields its share, of at least `least` samples. A batch
    too small for all of them goes to fewer: the others get a copy whose keys say that it does not count.
    """

    n: int
    batch: int  # samples, of all processes
    seed: int
    step: int
    extend: Extend | None = None
    rank: int = field(default_factory=distributed.rank, kw_only=True)
    world: int = field(default_factory=distributed.world, kw_only=True)
    least: int = field(default=2, kw_only=True)
    drop_last: bool = field(default=False, kw_only=True)  # where it is smaller; never the only one
    epoch: int = field(default=0, init=False)
    limit: int | None = field(default=None, init=False)

    def set_epoch(self, epoch: int, limit: int | None = None) -> None:
        """Choose the epoch of the next pass and how many batches of it to yield (None: all)."""
        self.epoch, self.limit = epoch, limit

    def _bounds(self) -> list[int]:
        n = self.n - self.n % self.batch if self.drop_last and self.n > self.batch else self.n
        bounds = [*range(0, n, self.batch), n]
        if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
            del bounds[-2]
        return bounds

    def __len__(self) -> int:
        return len(self._bounds()) - 1

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = generator(self.seed, "order", self.step, self.epoch).permutation(self.n).tolist()
        if self.n == 1:
            order = order * 2
        bounds = self._bounds() if self.n > 1 else [0, 2]
        for iteration, (a, b) in enumerate(itertools.pairwise(bounds)):
            if self.limit is not None and iteration >= self.limit:
                return
            keys = [SampleKey(self.step, position, self.step, self.epoch) for position in order[a:b]]
            yield self._share(self.extend(keys, self.epoch, iteration) if self.extend else keys)

    def _share(self, keys: list[SampleKey]) -> list[SampleKey]:
        if self.world == 1:
            return keys
        sharing = max(1, min(self.world, len(keys) // self.least))
        if self.rank < sharing:
            return keys[self.rank :: sharing]
        return [key._replace(counts=False) for key in keys[: self.least]]


def collate(samples: list[LoadedSample]) -> Batch:
    """A batch with image and labels still uint8: a quarter and an eighth of the bytes to move; see `Loop.prepared`."""
    columns: Any = zip(*samples, strict=True)
    images, targets, steps, indices, extras = columns
    names = [name for name in extras[0] if all(name in extra for extra in extras)]
    extra = {name: torch.stack([extra[name] for extra in extras]) for name in names}
    return Batch(torch.stack(images), torch.stack(targets), None, torch.tensor(steps), torch.tensor(indices), extra)


def choose_workers(asked: int | None, in_memory: bool) -> int:
    """Worker processes: as asked; none for data held in memory, else up to four, one less than the process's cores."""
    if asked is not None:
        return asked
    return 0 if in_memory else max(1, min(4, usable_cores() // distributed.local_world() - 1))


def make_loader(samples: TrainingSamples, batches: EpochBatches, workers: int, pin: bool) -> Iterable[Batch]:
    """The loader of one step; its workers live as long as the step."""
    options: dict[str, Any] = (
        {"persistent_workers": True, "prefetch_factor": 4, "worker_init_fn": _one_thread} if workers else {}
    )
    # an own generator: the loader would otherwise draw its base seed from the global one, and so change other draws
    rng = torch.Generator().manual_seed(derive(batches.seed, "loader"))
    options |= {"num_workers": workers, "pin_memory": pin, "generator": rng}
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, **options)  # type: ignore[return-value]


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)


def step_length(
    images: int, batch: int, epochs: int | None, iterations: int | None, factor: float = 1.0, drop_last: bool = False
) -> tuple[int, int]:
    """(epochs, iterations) of a step of so many images, `factor` times the given length; one at least, none for 0."""
    if not factor:
        return 0, 0
    if factor != 1:
        epochs, iterations = (None if n is None else max(1, round(factor * n)) for n in (epochs, iterations))
    per_epoch = len(EpochBatches(images, batch, 0, 0, drop_last=drop_last))
    if iterations is not None:
        return math.ceil(iterations / per_epoch), iterations
    assert epochs is not None
    return epochs, epochs * per_epoch
