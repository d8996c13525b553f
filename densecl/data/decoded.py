"""Images that could be decoded: each is tried once, remembered by the state of its file, and not tried again.

A class index reads masks, and of images the headers alone; a cut image would end a run when it is first drawn.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from densecl.data.class_index import for_each
from densecl.data.dataset import DenseDataset, Progress
from densecl.data.places import cache_folder
from densecl.errors import DataError
from densecl.files import atomic_path

_VERSION = 1


def decode_images(dataset: DenseDataset, indices: np.ndarray, *, progress: Progress | None = None) -> None:
    """Decode images, and their further maps, that were not decoded before; DataError if one is damaged.

    They are remembered in `decoded` in the cache folder, by path, size, time and inode, so that another split, task or
    run does not decode them again, and a changed file is. `progress` hears (images done, images to decode).
    """
    states = np.array([_state(dataset, int(i)) for i in indices], np.uint64)
    todo = np.flatnonzero(~np.isin(states, _load(_place(dataset))))
    good = np.zeros(len(todo), bool)

    def read(k: int) -> None:
        decode(dataset, int(indices[todo[k]]))
        good[k] = True

    if len(todo):
        try:
            for_each(read, len(todo), progress=progress)
        finally:  # also where one is damaged, or after Ctrl-C
            _remember(dataset, states[todo[good]])


def decode(dataset: DenseDataset, i: int) -> None:
    """Decode image `i` and its further maps; DataError if one is damaged."""
    dataset.read_image(i)
    dataset.read_extra(i)


def remember_all(dataset: DenseDataset) -> None:
    """Remember that all images of a data set were decoded; RunError if that cannot be kept."""
    _remember(dataset, np.array([_state(dataset, i) for i in range(len(dataset))], np.uint64))


def _remember(dataset: DenseDataset, states: np.ndarray) -> None:
    place = _place(dataset)
    with atomic_path(place) as temporary, temporary.open("wb") as file:
        np.save(file, np.union1d(_load(place), states))


def _place(dataset: DenseDataset) -> Path:
    """The file of a data set, named by a hash of all that decides how images are read."""
    content = f"{_VERSION}\n{dataset.name}\n{dataset.code}\n{dataset.upright}\n{dataset.root}"
    return cache_folder() / "decoded" / f"{dataset.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"


def _state(dataset: DenseDataset, i: int) -> int:
    """Hash of an image and of its files as they are; 64 bits, so that a million of them are told apart."""
    content = dataset.ids[i]  # several images may be in one file
    for path in (dataset.image_files[i], *dataset.extra_files(i).values()):
        try:
            state = os.stat(path)  # noqa: PTH116 - ten thousand Path objects would take as long as the rest
        except OSError as error:
            raise DataError(f"{path} is missing or cannot be read") from error
        content += f"\n{path}\n{state.st_size} {state.st_mtime_ns} {state.st_ino}"
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little")


def _load(place: Path) -> np.ndarray:
    """States of images that could be decoded; none where there is no file, or a broken one."""
    try:
        known = np.load(place, allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return np.zeros(0, np.uint64)
    return known if known.dtype == np.uint64 and known.ndim == 1 else np.zeros(0, np.uint64)
