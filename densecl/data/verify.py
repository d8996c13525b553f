"""Is a data set whole? Every list, every mask, every size; and what it holds."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from densecl.data import advice, locate, open_dataset
from densecl.data.class_index import for_each, keep
from densecl.data.dataset import VOID, DenseDataset
from densecl.errors import DataError, RunError

SPLITS = ("train", "val", "test")
# Images a split of the published data sets has; the lists in use agree on them.
OFFICIAL = {
    "voc": {"train": 10582, "val": 1449, "test": 1449},
    "camvid": {"train": 367, "val": 101, "test": 233},
    "shapes": {"train": 2000, "val": 250, "test": 500},
    "figures": {"train": 2000, "val": 250, "test": 500},
    "tints": {"train": 2000, "val": 250, "test": 500},
    "ade20k": {"train": 20210, "val": 2000, "test": 2000},
    "cityscapes": {"train": 2975, "val": 500, "test": 500},
    "coco": {"train": 118287, "val": 5000, "test": 5000},
}
_KINDS = {"train": "training", "val": "validation", "test": "test"}
_ERRORS_SHOWN = 20


class Finding(NamedTuple):
    """One line of the result."""

    level: Literal["ok", "note", "error"]  # note: usable, but not the full published data
    split: str  # "" for the whole data set
    text: str

    def __str__(self) -> str:
        return f"{self.level:5} {f'{self.split}: ' if self.split else ''}{self.text}"


Inspect = Callable[[DenseDataset, np.ndarray], list[Finding]]


def verify(
    name: str,
    root: Path | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    inspect: Inspect | None = None,
) -> list[Finding]:
    """Read every mask and every image's header; broken data is a finding, not an exception.

    One pass a split; what it finds is kept as the class index, so that a run does not read the masks again.

    Args:
        name: as for `open_dataset`.
        root: as for `open_dataset`.
        workers: threads.
        progress: called with (done, total) in each split.
        inspect: further findings of a split that has no error, from the reader and its (N, 256) class index; such as
            `densecl.streams.golden.inspect`.

    Returns:
        Findings; the data is usable when none has level `error`.
    """
    try:
        place = locate(name, root)
    except DataError as error:
        return [Finding("error", "", str(error))]
    findings = [Finding("ok", "", f"found in {place}")]
    seen: dict[str, str] = {}
    for split in SPLITS:
        try:
            dataset = open_dataset(name, split, root)
        except DataError as error:
            findings.append(Finding("error", split, str(error)))
            continue
        if dataset.source in seen:
            findings.append(Finding("ok", split, f"the same as {seen[dataset.source]} ({dataset.source})"))
            continue
        seen[dataset.source] = split
        findings += verify_split(dataset, workers=workers, progress=progress, inspect=inspect)
    return findings


def verify_split(
    dataset: DenseDataset,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    inspect: Inspect | None = None,
) -> list[Finding]:
    """As `verify`, for one split: its errors, its size against the published one, and the images of each class."""
    labels = np.zeros((len(dataset), 256), dtype=bool)
    errors: dict[int, str] = {}

    def read(i: int) -> None:
        try:
            labels[i] = dataset.read_labels(i)
        except DataError as error:
            errors[i] = str(error)

    for_each(read, len(dataset), workers=workers, progress=progress)
    findings = [Finding("error", dataset.split, errors[i]) for i in sorted(errors)[:_ERRORS_SHOWN]]
    if len(errors) > _ERRORS_SHOWN:
        findings.append(Finding("error", dataset.split, f"and {len(errors) - _ERRORS_SHOWN} more broken files"))
    findings.append(_size(dataset))
    counts = labels.sum(axis=0)
    names = [f"{name} {counts[c]}" for c, name in enumerate(dataset.class_names, start=1)]
    findings.append(Finding("ok", dataset.split, f"images of each class: {', '.join(names)}; with void {counts[VOID]}"))
    absent = [name for c, name in enumerate(dataset.class_names, start=1) if not counts[c]]
    if absent:
        findings.append(Finding("note", dataset.split, f"no image has {', '.join(absent)}"))
    if not errors:
        with contextlib.suppress(RunError):  # a cache that cannot be written is no fault of the data
            keep(dataset, labels)
        findings += inspect(dataset, labels) if inspect is not None else []
    return findings


def _size(dataset: DenseDataset) -> Finding:
    """The number of images against the published one."""
    n, split = len(dataset), dataset.split
    official = OFFICIAL.get(dataset.name, {}).get(split, n)
    have = f"{n:,} images ({dataset.source})"
    if n == official:
        return Finding("ok", split, have)
    kind = _KINDS.get(split, split)
    if n < official:
        gap = f"{official - n:,} of {official:,} {kind} images are absent"
    else:
        gap = f"{n - official:,} more than the {official:,} published {kind} images"
    text = f"{n:,} images ({dataset.source}); {gap}; usable, not comparable with published numbers"
    return Finding("note", split, f"{text}. {advice(dataset.name)}" if n < official else text)
