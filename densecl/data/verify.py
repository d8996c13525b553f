"""Is a data set whole? Every list, every mask, every size; and what it holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from densecl.data import locate, open_dataset
from densecl.data.class_index import for_each
from densecl.data.dataset import VOID, DenseDataset
from densecl.errors import DataError

SPLITS = ("train", "val", "test")
# Images a split of the published data sets has; the lists in use agree on them.
OFFICIAL = {
    "voc": {"train": 10582, "val": 1449, "test": 1449},
    "camvid": {"train": 367, "val": 101, "test": 233},
    "shapes": {"train": 2000, "val": 250, "test": 500},
}


class Finding(NamedTuple):
    """One line of the result."""

    level: Literal["ok", "note", "error"]  # note: usable, but not the full published data
    split: str  # "" for the whole data set
    text: str

    def __str__(self) -> str:
        return f"{self.level:5} {f'{self.split}: ' if self.split else ''}{self.text}"


def verify(
    name: str,
    root: Path | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Read every mask and every image's header; broken data is a finding, not an exception.

    Args:
        name: as for `open_dataset`.
        root: as for `open_dataset`.
        workers: threads.
        progress: called with (done, total) in each split.

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
        findings += verify_split(dataset, workers=workers, progress=progress)
    return findings


def verify_split(
    dataset: DenseDataset, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
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
    findings = [Finding("error", dataset.split, errors[i]) for i in sorted(errors)]
    official = OFFICIAL.get(dataset.name, {}).get(dataset.split, len(dataset))
    size = f"{len(dataset)} images ({dataset.source})"
    if len(dataset) == official:
        findings.append(Finding("ok", dataset.split, size))
    else:
        findings.append(Finding("note", dataset.split, f"{size}; the full split has {official}"))
    counts = labels.sum(axis=0)
    names = [f"{name} {counts[c]}" for c, name in enumerate(dataset.class_names, start=1)]
    findings.append(Finding("ok", dataset.split, f"images of each class: {', '.join(names)}; with void {counts[VOID]}"))
    absent = [name for c, name in enumerate(dataset.class_names, start=1) if not counts[c]]
    if absent:
        findings.append(Finding("note", dataset.split, f"no image has {', '.join(absent)}"))
    return findings
