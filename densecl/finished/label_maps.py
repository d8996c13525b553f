"""Label maps as files: a PNG named as each test image, in a folder for each step, with ids of one of three kinds."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.label_map import read_label_map
from densecl.errors import DataError, SettingError, UnknownNameError
from densecl.finished.about import FILE_NAME
from densecl.records.layout import ranges
from densecl.streams.samples import TestSamples
from densecl.streams.stream import Stream

IDS = ("data", "stream")
MOST = 65536  # ids of 16 bits
UNKNOWN = 256  # in tables: an id that stands for nothing; labels are 0..255
SHOWN = 3  # names of each kind of fault
FAULTS = {
    "missing": "test image{s} without a label map",
    "superfluous": "file{s} that {is} no label map of a test image",
    "unreadable": "label map{s} that cannot be used",
    "size": "label map{s} of another size than the mask",
    "ids": "label map{s} with ids that are not legal",
}


class Ids(NamedTuple):
    """The label of each id, by which label maps are read and written."""

    labels: np.ndarray  # (MOST,) int64: a label of the stream, UNKNOWN for ids that are not legal
    when: str = ""  # "after step 3"

    def after(self, stream: Stream, step: int) -> "Ids":
        """The ids that are legal after a step: of background and the classes learnt by then."""
        learnt = [0, *(label for group in stream.learnt(step) for label in group)]
        return Ids(np.where(np.isin(self.labels, learnt), self.labels, UNKNOWN), f"after step {step}")

    def illegal(self, ids: np.ndarray) -> str:
        """The ids of a map that are not legal, in words; empty if all are."""
        wrong = [int(i) for i in np.unique(ids) if not 0 <= i < MOST or self.labels[i] == UNKNOWN]
        listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        legal = ranges(np.flatnonzero(self.labels != UNKNOWN).tolist())
        return f"holds {listed}; legal {self.when}: {legal}" if wrong else ""

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Labels as ids, in 8 bits or, where they need them, 16: the smallest id of each label."""
        first = {int(label): int(i) for i, label in reversed([*enumerate(self.labels)]) if label != UNKNOWN}
        table = np.array([first.get(label, 0) for label in range(256)])
        return table.astype(np.uint8 if table.max() < 256 else np.uint16)[labels]


def ids_of(
    kind: str, reader: DenseDataset, samples: TestSamples, stream: Stream, own: Mapping[str, str] | None = None
) -> Ids:
    """The ids of the masks of the data set (`data`), the labels of the stream (`stream`), or a table of one's `own`.

    Where the data set has no background, its void ids stand for label 0, which is "none of the learnt classes".
    `own` has a class name for each id, as `[ids]` of `about.toml`.
    """
    labels = np.full(MOST, UNKNOWN)
    if own:
        numbers = {name: label for label, name in enumerate(stream.class_names)}
        for i, name in own.items():
            if name not in numbers:
                raise UnknownNameError("class in [ids]", name, numbers)
            labels[int(i)] = numbers[name]
        if missing := [name for name in stream.class_names[1:] if name not in own.values()]:
            raise SettingError(f"[ids] has no id for {', '.join(missing[:SHOWN])}", "give each class one")
    elif kind == "stream":
        labels[: len(stream.class_names)] = range(len(stream.class_names))
    elif kind == "data":
        for i, label in reader.labels.items():
            labels[i] = UNKNOWN if label == VOID else int(samples.table[label])
        if 0 not in labels:
            labels[[i for i, label in reader.labels.items() if label == VOID]] = 0
    else:
        raise UnknownNameError("kind of ids", kind, IDS)
    return Ids(labels)


class Faults:
    """Collect the faults of label maps, of every kind, for one message."""

    def __init__(self, place: Path):
        self.place = place
        self.found: dict[str, list[str]] = {}

    def add(self, kind: str, texts: Sequence[str]) -> None:
        """Note faults of a kind."""
        self.found.setdefault(kind, []).extend(texts)

    def many(self) -> bool:
        """True if there is no use in reading further."""
        return sum(map(len, self.found.values())) > 20 * SHOWN

    def check(self) -> None:
        """Raise a DataError that names them, if there are some."""
        parts = []
        for kind in (kind for kind in FAULTS if self.found.get(kind)):
            texts = sorted(self.found[kind])
            words = FAULTS[kind].format(**({"s": "s", "is": "are"} if len(texts) > 1 else {"s": "", "is": "is"}))
            shown = ", ".join(texts[:SHOWN]) + (", ..." if len(texts) > SHOWN else "")
            parts.append(f"{len(texts)} {words} ({shown})")
        if parts:
            raise DataError(f"{self.place}: {'; '.join(parts)}")


class MapFault(Exception):
    """A fault of one label map, with its kind."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


def read_map(path: Path, legal: Ids, *, any_palette: bool = False) -> np.ndarray:
    """The labels of a label map, (H, W) uint8; MapFault if it cannot be read or holds other ids."""
    try:
        ids = read_label_map(path, any_palette=any_palette)
    except DataError as error:
        raise MapFault("unreadable", str(error).removeprefix(f"label map {path} ")) from error
    if wrong := legal.illegal(ids):
        raise MapFault("ids", wrong)
    return legal.labels[ids].astype(np.uint8)


def step_folders(folder: Path, count: int, step: int | None) -> dict[int, Path]:
    """The folder of each step's maps: `step0`, `step1`, ... or, of one step, the folder itself.

    Raises:
        DataError: steps that are left out, or something else beside them.
        SettingError: a step that the stream does not have, or that is not said.
    """
    if step is not None and step >= count:
        raise SettingError(f"--step {step}: the stream has steps 0 to {count - 1}")
    entries = sorted(path for path in folder.iterdir() if path.name != FILE_NAME and not path.name.startswith("."))
    named = {path: re.fullmatch(r"step(0|[1-9]\d*)", path.name) for path in entries}
    steps = {int(match[1]): path for path, match in named.items() if match and path.is_dir()}
    if not steps:
        if step is None and count > 1:
            raise SettingError(
                f"{folder} has no folders step0, step1, ...",
                f"maps of one step need its number: --step 0 to {count - 1}",
            )
        return {step or 0: folder}
    if other := next((path.name for path in entries if path not in steps.values()), None):
        raise DataError(f"{folder} has {other} beside folders of steps", "move it elsewhere")
    if max(steps) >= count:
        raise DataError(f"{folder} has step{max(steps)}, and the stream steps 0 to {count - 1}")
    if step is not None and step not in steps:
        raise DataError(f"{folder} has no step{step}")
    if step is None and (gap := next((k for k in range(max(steps)) if k not in steps), None)) is not None:
        raise DataError(f"{folder} has step{max(steps)} and no step{gap}", "add it, or score one step with --step")
    return steps if step is None else {step: steps[step]}


def map_files(folder: Path, reader: DenseDataset, needed: Sequence[int], place: str, faults: Faults) -> dict[int, Path]:
    """The label map of each needed image, by its index; missing and superfluous ones become faults.

    Maps of further images of the data set's split are left alone.
    """
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    there = {name: path for name, path in there.items() if name != FILE_NAME and "/." not in f"/{name}"}
    names = {map_name(image): index for index, image in enumerate(reader.ids)}
    found = {names[name]: path for name, path in there.items() if name in names}
    faults.add("missing", [f"{place}{map_name(reader.ids[index])}" for index in needed if index not in found])
    faults.add("superfluous", [f"{place}{name}" for name in there if name not in names])
    return {index: found[index] for index in needed if index in found}


def map_name(image: str) -> str:
    """The file of an image's label map.

    Raises:
        DataError: the image is named by a path that leads out of its folder.
    """
    if Path(image).is_absolute() or ".." in Path(image).parts:
        raise DataError(f"the test image {image} cannot name a label map", "give it an id without ..")
    return f"{image}.png"
