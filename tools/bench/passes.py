"""Times of the passes that training makes over its loader, taken at the loader: nothing of the loop is changed."""

import contextlib
import time
from collections.abc import Iterator
from unittest.mock import patch

from torch.utils.benchmark import timer
from torch.utils.data import DataLoader

from bench.rows import Spent


@contextlib.contextmanager
def passes() -> Iterator[list[tuple[Spent, Spent]]]:
    """Seconds of each pass that ends inside: waiting for batches, and all of it.

    Both count from the first batch on: starting the workers is no part of them.
    """
    ended: list[tuple[Spent, Spent]] = []
    iterate = DataLoader.__iter__

    def watched(loader: DataLoader):
        batches = iterate(loader)
        batch, waited, start, used = next(batches, None), [], timer(), time.process_time()
        while batch is not None:
            yield batch
            asked, working = time.perf_counter(), time.process_time()
            batch = next(batches, None)
            waited.append(Spent(time.perf_counter() - asked, time.process_time() - working))
        ended.append((total(waited), Spent(timer() - start, time.process_time() - used)))

    with patch.object(DataLoader, "__iter__", watched):
        yield ended


def total(spent: list[Spent]) -> Spent:
    """The sum of times."""
    return Spent(sum(one.clock for one in spent), sum(one.processor for one in spent))
