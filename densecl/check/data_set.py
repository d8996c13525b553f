"""Try a data set: every split is opened, a few images and masks are read."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from densecl.check.findings import added_to, trying
from densecl.data.dataset import VOID, DenseDataset

NEEDED = ("train", "test")  # splits of every run
MOST = 254  # classes: labels are 8 bits, of which 0 is background and 255 void


def check_data_set(cls: type | DenseDataset, root: Path | None = None, **settings: Any) -> list[str]:
    """Find what is wrong with a data set, in words: with all splits of a class and its settings, or with one reader.

    The default of `root`, the folder of its files, is that of `DenseDataset.locate`.
    """
    if isinstance(cls, DenseDataset):
        return _statements(type(cls)) + _reader(cls)
    if not issubclass(cls, DenseDataset):
        return [f"{cls.__name__} is no data set: subclass densecl.data.dataset.DenseDataset"]
    if findings := _statements(cls):
        return findings
    with added_to(findings), trying("finding its folder", cls):
        root = cls.locate(root)
    readers: dict[str, DenseDataset] = {}
    for split in cls.splits if not findings else ():
        with added_to(findings), trying(f"opening {split}", cls):
            readers[split] = cls(root, split, **settings)  # type: ignore[arg-type]
    for reader in readers.values():
        findings += [f"{reader.split}: {finding}" for finding in _reader(reader)]
    if not findings and (both := sorted(set.intersection(*(set(readers[split].image_files) for split in NEEDED)))):
        findings.append(f"{len(both)} images are in train and in test: {', '.join(both[:3])}")
    return findings


def _statements(cls: type[DenseDataset]) -> list[str]:
    """Look at the attributes of the class."""
    findings = []
    if cls.files is DenseDataset.files:
        findings.append(f"{cls.__name__} has no method files(self, split), which gives (id, image, mask) of each image")
    classes = cls.class_names
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        return [*findings, f"class_names is {classes!r}: write a tuple of names"]
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        findings.append(f"class_names has {', '.join(twice)} more than once")
    if len(classes) > MOST:
        findings.append(f"class_names has {len(classes)} names: a mask of 8 bits has room for {MOST}")
    findings += [f"splits has no {split}, which every run needs" for split in NEEDED if split not in cls.splits]
    legal = {*range(len(classes) + 1), VOID}
    for stored, label in cls.label_of.items():
        if not 0 <= stored <= VOID or label not in legal:
            findings.append(f"label_of has {stored}: {label}; ids are 0-255, labels 0-{len(classes)} and {VOID}")
    return findings


def _reader(reader: DenseDataset) -> list[str]:
    """Look at one split: its ids, and its first, middle and last image."""
    findings: list[str] = []
    if not reader.has_masks and reader.class_names:
        findings.append("it names classes, but its images have no masks")
    if reader.has_masks and not reader.class_names:
        findings.append("its images have masks, but class_names is empty")
    with added_to(findings), trying("handing it to a worker process", type(reader)):
        pickle.dumps(reader)
    with added_to(findings), trying("listing its files again", type(reader)):
        if type(reader)(reader.root, reader.split, **reader.settings).ids != reader.ids:
            findings.append("files() gives another order each time: sort what you list")
    for i in sorted({0, len(reader) // 2, len(reader) - 1}):
        with added_to(findings), trying(f"reading '{reader.ids[i]}'", type(reader)):
            findings += [f"'{reader.ids[i]}': {finding}" for finding in _sample(reader, i)]
    for truth in reader.truths:
        with added_to(findings), trying(f"reading {truth} of '{reader.ids[0]}'", type(reader)):
            findings += [f"{truth} of '{reader.ids[0]}': {finding}" for finding in _truth(reader.of(truth))]
    return findings


def _truth(reader: DenseDataset) -> Iterator[str]:
    """Look at the first map of another truth than labels."""
    values, size = reader.read_truth(0), tuple(reader.image_size(0))
    if values.dtype != np.float32 or values.ndim != 3 or values.shape[1:] != size:
        yield f"read_truth gives {values.dtype} {values.shape}: it must be float32 (channels, {size[0]}, {size[1]})"
    elif not np.isfinite(values).all():
        yield "read_truth gives numbers that are not finite: let it be 0 where nothing is known"
    elif reader.truth == "normals":
        length = np.sqrt(np.square(values).sum(0))
        if not np.allclose(length[length > 0], 1, atol=0.05):
            yield "read_truth gives normals that are not unit vectors"


def _sample(reader: DenseDataset, i: int) -> Iterator[str]:
    """Look at one image and its mask."""
    image = reader.read_image(i)
    ids = reader.read_ids(i) if reader.has_masks else np.zeros(image.shape[:2], np.uint8)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        yield f"read_image gives {image.dtype} {image.shape}: it must be uint8 (height, width, 3), RGB"
    elif ids.dtype != np.uint8 or ids.ndim != 2 or not ids.flags.c_contiguous:
        yield f"read_ids gives {ids.dtype} {ids.shape}: it must be uint8 (height, width), contiguous"
    elif tuple(reader.image_size(i)) != image.shape[:2]:
        yield f"image_size gives {tuple(reader.image_size(i))}, the image is {image.shape[:2]}: (height, width)"
    else:
        reader.read_extra(i)  # refuses a map of another size
        mask = reader.read(i).mask.numpy()
        if not reader.has_background and (mask == 0).any():
            yield "label 0 occurs, but has_background is False: let label_of make it 255 (void), or say True"
        if (mask == VOID).all():
            yield "all of its mask is void: nothing can be learnt from it"
        if set(np.flatnonzero(reader.read_labels(i))) != set(np.unique(mask)):
            yield "read_labels and read_mask disagree"
