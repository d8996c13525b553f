"""What the ids or colours of masks stand for, and the masks of labels that are made of them, once, in the cache."""

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from densecl.data.dataset import VOID
from densecl.data.decode import read_indices, read_values, write_mask
from densecl.data.places import cache_folder
from densecl.errors import DataError, SettingError
from densecl.files import atomic_path

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
MOST = 254  # classes: label 0 is background, 255 void


@dataclass(frozen=True)
class Legend:
    """The label of each id, or colour as 0xRRGGBB, that may occur in masks."""

    label_of: Mapping[int, int]
    colours: bool = False

    @cached_property
    def key(self) -> str:
        """Hash of all that labels depend on."""
        return hashlib.sha256(f"1 {self.colours} {sorted(self.label_of.items())}".encode()).hexdigest()[:16]

    def read(self, path: str) -> np.ndarray:
        """The labels of a mask, (H, W) uint8.

        8-bit masks of ids are read as they are. Any other is decoded once: its labels lie in the cache folder, under
        its path, size, time and inode. DataError for an unreadable mask, or one with a value that has no label, which
        is named with its pixel; RunError if the labels cannot be kept.
        """
        ids = None
        with contextlib.suppress(DataError):  # of another kind, or unreadable, which is told below
            ids = None if self.colours else read_indices(path)
        if ids is not None:
            return self.apply(ids, path)
        place = self._place(path)
        if place.is_file():
            with contextlib.suppress(DataError):  # damaged: made again
                return read_indices(place)
        labels = self.apply(read_values(path, colours=self.colours), path)
        with atomic_path(place) as temporary:
            write_mask(labels, temporary)
        return labels

    def apply(self, values: np.ndarray, path: str) -> np.ndarray:
        """Labels of ids or colours, (H, W); errors as `read`, in which the file is `path`."""
        if values.dtype == np.uint8:
            labels = self._by_byte[values]
            unknown = labels < 0
        else:
            known, stored = self._sorted
            places = np.minimum(np.searchsorted(known, values), len(known) - 1)
            unknown, labels = known[places] != values, stored[places]
        if unknown.any():
            y, x = np.argwhere(unknown)[0]
            kind, shown = ("colour", colour_text) if self.colours else ("id", str)
            fault = f"mask {path} has the {kind} {shown(int(values[y, x]))} at x={x}, y={y}, which no class has"
            advice = "a JPEG changes ids and colours: save masks as PNG"
            if not path.lower().endswith((".jpg", ".jpeg")):
                listed = ", ".join(map(shown, self.label_of))
                advice = f"put it into `{kind}s`, `ignore` or `background`; known: {listed[:200]}"
            raise DataError(fault, advice)
        return labels.astype(np.uint8)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        known = sorted(self.label_of)
        return np.array(known), np.array([self.label_of[value] for value in known], np.int16)

    @cached_property
    def _by_byte(self) -> np.ndarray:
        """(256,) int16: the label of each 8-bit id, -1 where there is none."""
        return np.array([self.label_of.get(value, -1) for value in range(256)], np.int16)

    def _place(self, path: str) -> Path:
        """Where the labels of a mask are kept."""
        try:
            state = os.stat(path)  # noqa: PTH116 - a Path would cost more than the call
        except OSError as error:
            raise DataError(f"mask {path} is missing or cannot be read") from error
        identity = f"{path} {state.st_size} {state.st_mtime_ns} {state.st_ino}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:24]
        return cache_folder() / "masks" / self.key / f"{name}.png"


def legend(
    classes: Sequence[str],
    ids: Sequence[int] = (),
    colours: Sequence[str] = (),
    background: Sequence[int | str] | int | str | bool = True,
    ignore: Sequence[int | str] | int | str | None = None,
) -> Legend:
    """The legend of classes in their order: ids (1, 2, ... if there are neither) or colours `#rrggbb`.

    `background` are the values of no class: True for 0 or #000000 where no class has it, False for none. `ignore` are
    those of void; by default 255 where ids are none of a class. SettingError for names, ids or colours that do not
    fit each other, or that stand twice.
    """
    if not classes:
        raise SettingError("the data set 'masks' has no classes", 'name them: classes = ["cell", "nucleus"]')
    if twice := [name for name in classes if list(classes).count(name) > 1]:
        raise SettingError(f"two classes are named '{twice[0]}'", "give each class one name, and each name one class")
    if len(classes) > MOST:
        raise SettingError(f"there are {len(classes)} classes", f"masks of labels hold {MOST} at most")
    if ids and colours:
        raise SettingError("both `ids` and `colours` are given", "masks hold one or the other")
    values = list(colours or ids or range(1, len(classes) + 1))
    word = "colours" if colours else "ids"
    if len(values) != len(classes):
        raise SettingError(f"there are {len(classes)} classes and {len(values)} {word}", "give one to each class")
    owner: dict[int, str] = {}
    label_of: dict[int, int] = {}

    def add(value: int | str, label: int, name: str) -> None:
        number = _number(value, word)
        if number in owner:
            raise SettingError(f"{name} and {owner[number]} have one of the {word}: {value}", "give it to one of them")
        owner[number], label_of[number] = name, label

    for label, (name, value) in enumerate(zip(classes, values, strict=True), start=1):
        add(value, label, f"'{name}'")
    zero, void = ("#000000", None) if colours else (0, VOID)
    if background is True:
        background = () if _number(zero, word) in owner else (zero,)
    if ignore is None:
        ignore = () if void is None or void in owner else (void,)
    for value in () if background is False else _several(background):
        add(value, 0, "background")
    for value in _several(ignore):
        add(value, VOID, "`ignore`")
    return Legend(label_of, bool(colours))


def _several(values: object) -> tuple[int | str, ...]:
    return tuple(values) if isinstance(values, list | tuple) else (values,)  # type: ignore[return-value]


def _number(value: int | str, word: str) -> int:
    """An id, or a colour as 0xRRGGBB."""
    if word == "ids":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise SettingError(f"{value!r} is no id of a mask", "ids are whole numbers from 0")
        return value
    if not isinstance(value, str) or COLOUR.fullmatch(value) is None:
        raise SettingError(f"{value!r} is no colour", "write #rrggbb, such as #804080")
    return int(value[1:], 16)


def colour_text(colour: int) -> str:
    """`#rrggbb` for 0xRRGGBB."""
    return f"#{colour:06x}"
