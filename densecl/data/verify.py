"""Verify a data set: every list, every mask, every image; and count what it holds."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from densecl.data import data_set, open_dataset
from densecl.data.class_index import Contents, empty_contents, for_each, keep
from densecl.data.dataset import VOID, DenseDataset, Progress
from densecl.data.decoded import decode, remember_all
from densecl.errors import DataError, RunError

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
    name: str, root: Path | None = None, *, progress: Progress | None = None, inspect: Inspect | None = None
) -> list[Finding]:
    """Decode every mask and every image; broken data is a finding, not an exception.

    One pass a split; what it finds is kept as the class index, so that a run does not read them again. The data is
    usable when no finding has level `error`. `inspect` gives further findings of a split that has no error, from the
    reader and its (N, 256) class index; such as `densecl.streams.golden.inspect`.
    """
    cls = data_set(name)
    try:
        findings = [Finding("ok", "", f"found in {cls.locate(root)}")]
    except DataError as error:
        return [Finding("error", "", str(error))]
    if cls.paper:
        findings.append(Finding("ok", "", f"cite {cls.paper}; licence: {cls.licence or 'not stated'}"))
    seen: dict[str, str] = {}
    for split in (split for split in cls.splits if split != "trainval"):
        try:
            dataset = open_dataset(name, split, root)
        except DataError as error:
            findings.append(Finding("error", split, str(error)))
            continue
        if dataset.source in seen:
            findings.append(Finding("ok", split, f"the same as {seen[dataset.source]} ({dataset.source})"))
            continue
        seen[dataset.source] = split
        findings += verify_split(dataset, progress=progress, inspect=inspect)
        for truth in dataset.truths:
            findings += verify_truth(dataset, truth, progress=progress)
    return findings


def verify_truth(dataset: DenseDataset, truth: str, *, progress: Progress | None = None) -> list[Finding]:
    """As `verify_split`, of another truth than labels; that it is not there is a note."""
    try:
        other = dataset.of(truth)
    except DataError as error:
        return [Finding("note", dataset.split, f"without {truth}: {error}")]
    contents, errors = _read(other, progress)
    if errors:
        return errors
    with contextlib.suppress(RunError):
        keep(other, contents)
    classes = f" ({len(dataset.image_classes)} classes)" if truth == "class" else ""
    return [Finding("ok", dataset.split, f"{truth} of {len(other):,} images{classes}")]


def verify_split(
    dataset: DenseDataset, *, progress: Progress | None = None, inspect: Inspect | None = None
) -> list[Finding]:
    """As `verify`, for one split: its errors, its size against the published one, and the images of each class."""
    contents, errors = _read(dataset, progress)
    labels = contents.labels
    findings = [*errors, _size(dataset)]
    counts = dict(zip(dataset.class_names, labels.sum(axis=0)[1:].tolist(), strict=False))
    names = ", ".join(f"{name} {count}" for name, count in counts.items())
    findings.append(Finding("ok", dataset.split, f"images of each class: {names}; with void {labels[:, VOID].sum()}"))
    absent = [name for name, count in counts.items() if not count]
    if absent:
        findings.append(Finding("note", dataset.split, f"no image has {', '.join(absent)}"))
    if not errors:
        with contextlib.suppress(RunError):  # a cache that cannot be written is no fault of the data
            keep(dataset, contents)
            remember_all(dataset)
        findings += inspect(dataset, labels) if inspect is not None else []
    return findings


def _read(dataset: DenseDataset, progress: Progress | None) -> tuple[Contents, list[Finding]]:
    """The contents of all masks, and an error for each image or mask that is broken."""
    labels, digests = contents = empty_contents(len(dataset))
    errors: dict[int, str] = {}

    def read(i: int) -> None:
        try:
            labels[i], digests[i] = dataset.read_contents(i)
            decode(dataset, i)
        except DataError as error:
            errors[i] = str(error)

    for_each(read, len(dataset), progress=progress)
    findings = [Finding("error", dataset.split, errors[i]) for i in sorted(errors)[:_ERRORS_SHOWN]]
    if len(errors) > _ERRORS_SHOWN:
        findings.append(Finding("error", dataset.split, f"and {len(errors) - _ERRORS_SHOWN} more broken files"))
    return contents, findings


def _size(dataset: DenseDataset) -> Finding:
    """Compare the number of images with the published one."""
    n, split = len(dataset), dataset.split
    published = dataset.counts.get(split, n)
    have = f"{n:,} images ({dataset.source})"
    if n == published:
        return Finding("ok", split, have)
    kind = f"{_KINDS.get(split, split)} images"
    gap = f"{published - n:,} of {published:,} {kind} are absent"
    if n > published:
        gap = f"{n - published:,} more than the {published:,} published {kind}"
    text = f"{have}; {gap}; usable, not comparable with published numbers"
    return Finding("note", split, f"{text}. {dataset.hint()}" if n < published else text)
