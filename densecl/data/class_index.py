"""Labels and digests of the masks of a data set: scanned once, in parallel, and kept."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densecl.data.dataset import DenseDataset, Progress
from densecl.data.places import cache_folder
from densecl.errors import DataError
from densecl.files import atomic_path

_VERSION = 2
_CHUNK = 32  # masks a task: few enough for progress, enough that the queue costs nothing


class Contents(NamedTuple):
    """Labels and digests of the N masks of a data set."""

    labels: np.ndarray  # (N, 256) bool, 0 and 255 included
    digests: np.ndarray  # (N, 16) uint8, of the ids of all pixels


def class_index(
    dataset: DenseDataset, *, workers: int | None = None, progress: Progress | None = None, folder: Path | None = None
) -> np.ndarray:
    """Find the labels of each mask: (N, 256) bool; see `mask_contents`."""
    return mask_contents(dataset, workers=workers, progress=progress, folder=folder).labels


def mask_contents(
    dataset: DenseDataset, *, workers: int | None = None, progress: Progress | None = None, folder: Path | None = None
) -> Contents:
    """Find the labels of each mask and a digest of its pixels.

    The answer is kept in `folder`, by default `index` in the cache folder, under a key of what was read (path, size,
    time and inode of every mask and image, the reader's labels), so a changed file is noticed; a broken file there is
    scanned again. `workers` are threads, by default one a core: decoding releases the interpreter lock. DataError if a
    file is unreadable, a mask has another size than its image or an illegal id; RunError if it cannot be kept.
    """
    stored = _load(_place(dataset, folder), len(dataset))
    if stored is not None:
        return stored
    contents = scan(dataset, workers=workers, progress=progress)
    keep(dataset, contents, folder)
    return contents


def keep(dataset: DenseDataset, contents: Contents, folder: Path | None = None) -> None:
    """Keep what was found for `mask_contents`; errors as there."""
    with atomic_path(_place(dataset, folder)) as temporary, temporary.open("wb") as file:
        np.savez(file, labels=np.packbits(contents.labels, axis=1), digests=contents.digests)


def scan(dataset: DenseDataset, *, workers: int | None = None, progress: Progress | None = None) -> Contents:
    """As `mask_contents`, without the cache."""
    contents = empty_contents(len(dataset))

    def read(i: int) -> None:
        contents.labels[i], contents.digests[i] = dataset.read_contents(i)

    for_each(read, len(dataset), workers=workers, progress=progress)
    return contents


def empty_contents(count: int) -> Contents:
    """The contents of masks that are still to be read."""
    return Contents(np.zeros((count, 256), dtype=bool), np.zeros((count, 16), dtype=np.uint8))


def for_each(
    work: Callable[[int], None], count: int, *, workers: int | None = None, progress: Progress | None = None
) -> None:
    """Call `work(0)` ... `work(count - 1)` in threads, by default one a core; the first exception ends it.

    `progress` is called with (done, count) from this thread.
    """
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        for chunk, _ in zip(chunks, pool.map(lambda chunk: [work(i) for i in chunk], chunks), strict=True):
            if progress is not None:
                progress(chunk.stop, count)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _place(dataset: DenseDataset, folder: Path | None) -> Path:
    """The file of an index, named by a hash of all that it is made of."""
    content = hashlib.sha256(f"{_VERSION}\n{dataset.name}\n{sorted(dataset.labels.items())}\n{dataset.code}".encode())
    content.update(b"" if dataset.truth == "labels" else dataset.truth.encode())
    for mask, image in zip(dataset.mask_files, dataset.image_files, strict=True):
        for path in (mask, image):
            try:
                state = os.stat(path)  # noqa: PTH116 - ten thousand Path objects would take as long as the rest
            except OSError as error:
                raise DataError(f"{path} is missing or cannot be read") from error
            content.update(f"{path}\n{state.st_size} {state.st_mtime_ns} {state.st_ino}\n".encode())
    if len(set(dataset.mask_files)) < len(dataset):  # files of many samples: which of them
        content.update("\n".join(dataset.ids).encode())
    return (folder or cache_folder() / "index") / f"{dataset.name}-{content.hexdigest()[:16]}.npz"


def _load(path: Path, count: int) -> Contents | None:
    """Read what was kept; None when there is nothing or it is broken (the zip format carries a check sum)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            packed, digests = content["labels"], content["digests"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    if (packed.shape, digests.shape) != ((count, 32), (count, 16)) or {packed.dtype, digests.dtype} != {np.dtype("u1")}:
        return None
    return Contents(np.unpackbits(packed, axis=1).astype(bool), digests)
