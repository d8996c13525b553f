"""What the class index costs beside a bare parallel decode of the same masks."""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from densecl.data.class_index import class_index, for_each, scan, usable_cores
from densecl.data.dataset import DenseDataset


def measure(dataset: DenseDataset, repeats: int = 5, workers: int | None = None) -> dict[str, float]:
    """Time both in turn, in one process, on the same threads.

    Args:
        dataset: what to scan; its files are read once before, so that none comes from the disk.
        repeats: pairs of measurements.
        workers: threads, default one a core.

    Returns:
        `images`, `workers`; `decode` and `index`, median seconds; `ratio`, median of index / decode over the pairs;
        `again`, median seconds of a kept index.
    """

    def decode(i: int) -> None:
        with Image.open(dataset.mask_files[i]) as image:
            np.asarray(image)

    def bare() -> None:
        for_each(decode, len(dataset), workers=workers)

    def index() -> None:
        scan(dataset, workers=workers)

    bare()
    index()
    pairs = [(_seconds(bare), _seconds(index)) for _ in range(repeats)]
    with tempfile.TemporaryDirectory() as folder:
        kept = functools.partial(class_index, dataset, workers=workers, folder=Path(folder))
        kept()
        again = [_seconds(kept) for _ in range(repeats)]
    return {
        "images": len(dataset),
        "workers": workers or usable_cores(),
        "decode": statistics.median(a for a, _ in pairs),
        "index": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(b / a for a, b in pairs),
        "again": statistics.median(again),
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
