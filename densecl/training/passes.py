"""Passes over a step's images beside training, for measurements before or after it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from densecl.seeding import derive
from densecl.training import distributed
from densecl.training.batch import Batch
from densecl.training.loader import EpochBatches, make_loader

if TYPE_CHECKING:
    from densecl.training.loop import Loop


def batches(loop: "Loop", purpose: str, passes: int, augment: bool) -> Iterator[Batch]:
    """Prepared batches of the step in training; see `Strategy.batches`.

    Copies that do not count (`UNCOUNTED`) are left out, so that what is summed over processes counts each image once.
    """
    keys = EpochBatches(
        len(loop.experience.images.indices),
        loop.settings.batch,
        loop.seed,
        loop.step,
        lambda samples, _epoch, _iteration: [key._replace(augmented=augment) for key in samples],
        rank=distributed.rank(),
        world=distributed.world(),
        least=1,
    )
    loader = make_loader(loop.scenario.training, keys, loop.workers, loop.device.type == "cuda")
    for number in range(passes):
        keys.set_epoch(derive(loop.seed, purpose, loop.step, number))
        for batch in loader:
            if int(batch.index[0]) >= 0:
                yield loop.prepared(batch.to(loop.device), loop.task)
