"""Data of one's own: folders or lists of images with masks of ids or colours, named in a recipe, without code."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from densecl.data.dataset import DenseDataset
from densecl.data.decode import SUFFIXES
from densecl.data.legend import legend
from densecl.data.places import read_words
from densecl.errors import SettingError
from densecl.settings.arguments import resolve

Values = tuple[int | str, ...] | int | str
PLACE = "{split}"


class MaskSettings:
    """The keys of `[data]`, beside those that all data sets have."""

    classes: tuple[str, ...] = ()  # names, without background
    ids: tuple[int, ...] = ()  # in the masks, one a class; 1, 2, ... where neither these nor colours are given
    colours: tuple[str, ...] = ()  # such as #804080, one a class
    background: Values | bool = True  # ids or colours of no class; true: 0 or #000000, false: there is none
    ignore: Values | None = None  # ids or colours of void; none: 255 where masks hold ids
    images: str = "images"  # folder below the root; {split} stands for the split
    masks: str = "masks"
    image_suffix: str = ""  # what follows a name in a file's; empty: any of images
    mask_suffix: str = ""
    train: str = "train"  # a list below the root, or what {split} stands for
    test: str = "test"
    val: str = ""  # empty: the test images
    every: Annotated[int, Field(ge=0)] = 0  # each Nth image by name is a test image; 0: lists or folders


class Masks(DenseDataset):
    """Images and masks whose places, classes and ids or colours are settings; see `MaskSettings`.

    A mask belongs to the image whose path in its folder is the same without the suffixes. A line of a list is such a
    name, a path of an image, or paths of an image and its mask. Masks may be palette, grey, of 1 to 32 bits, or in
    colour. `densecl data describe FOLDER` writes a recipe for a folder.
    """

    name = "masks"
    splits = ("train", "val", "test", "trainval")
    get_it = "name its folder as `root` of [data], or put it in {place}"

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Check the settings, and take class names and labels from them."""
        given = self.given = MaskSettings()
        vars(given).update(resolve(MaskSettings, object, dict(settings), self.name))
        self.legend = legend(given.classes, given.ids, given.colours, given.background, given.ignore)
        self.class_names = given.classes
        self.has_background = 0 in self.legend.label_of.values()

    @classmethod
    def names_with(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The classes of the settings."""
        return tuple(map(str, settings.get("classes", ())))

    @property
    def code(self) -> str:
        """Hash of the meaning of ids or colours, which the class index depends on."""
        return self.legend.key

    def read_ids(self, i: int) -> np.ndarray:
        """The labels of mask `i`, (H, W) uint8."""
        return self.legend.read(self.mask_files[i])

    def files(self, split: str) -> list[tuple[str, str, str]]:
        """List the images of a split, of a list or of folders, each with its mask."""
        given = self.given
        if given.every:
            self.source = f"each {given.every}th of {given.images}" + ("" if split == "test" else f", not {split}")
            pairs = sorted(self._folders("").items())
            held = [number % given.every == given.every - 1 for number in range(len(pairs))]
            wanted = {"train": (False,), "trainval": (False, True)}.get(split, (True,))
            return [(name, *pair) for (name, pair), test in zip(pairs, held, strict=True) if test in wanted]
        own = {"train": given.train, "test": given.test, "val": given.val or given.test}
        parts = [own["train"], own["val"]] if split == "trainval" else [own[split]]
        self.source = " + ".join(parts)
        return [row for part in parts for row in self._part(part)]

    def _part(self, part: str) -> list[tuple[str, str, str]]:
        """The images of a list or of a folder."""
        list_file = self.root / part
        if list_file.suffix == ".txt" or list_file.is_file():
            return self._listed(list_file)
        if PLACE not in self.given.images:
            fault = f"`{part}` is no list in {self.root}, and `images` has no {PLACE} that it could stand for"
            advice = f'give a list, train = "train.txt", folders, images = "{PLACE}/images", or every = 5'
            raise SettingError(fault, advice)
        return [(name, *pair) for name, pair in sorted(self._folders(part).items())]

    def _listed(self, list_file: Path) -> list[tuple[str, str, str]]:
        """The images of a list."""
        images, masks = self._found(part := list_file.stem)
        suffix, rows = self.given.image_suffix, []
        for words in read_words(list_file, self.hint()):
            name = _name_in(line := " ".join(words), images, suffix)
            if name is None and len(words) == 2 and (name := _name_in(words[0], images, suffix)) is not None:
                mask = _name_in(words[1], masks, self.given.mask_suffix)
                rows.append((name, images[name], masks.get(mask or "", str(self.root / words[1].lstrip("/")))))
            else:
                rows.append((name or line, *self._pair(name or line, images, masks, part)))
        return rows

    def _folders(self, part: str) -> dict[str, tuple[str, str]]:
        """Image and mask of each name in the folders; of one without the other, the path where it should be."""
        images, masks = self._found(part)
        return {name: self._pair(name, images, masks, part) for name in images | masks}

    def _found(self, part: str) -> tuple[dict[str, str], dict[str, str]]:
        given = self.given
        image_folder, mask_folder = self.root / given.images.replace(PLACE, part), self._masks(part)
        images, masks = _files(image_folder, given.image_suffix), _files(mask_folder, given.mask_suffix)
        return images, masks

    def _masks(self, part: str) -> Path:
        return self.root / self.given.masks.replace(PLACE, part)

    def _pair(self, name: str, images: Mapping[str, str], masks: Mapping[str, str], part: str) -> tuple[str, str]:
        image = self.root / self.given.images.replace(PLACE, part) / f"{name}{self.given.image_suffix or '.jpg'}"
        mask = self._masks(part) / f"{name}{self.given.mask_suffix or '.png'}"
        return images.get(name, str(image)), masks.get(name, str(mask))


def _files(folder: Path, suffix: str) -> dict[str, str]:
    """Files in a folder and below it that end so, by their path in it without the suffix."""
    result = {}
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        inside = "" if place == str(folder) else f"{Path(place).relative_to(folder).as_posix()}/"
        for name in sorted(names):
            if not name.startswith(".") and (stem := _without(name, suffix)) is not None:
                result[inside + stem] = f"{place}{os.sep}{name}"
    return result


def _without(name: str, suffix: str) -> str | None:
    """A name of a file, or its path, without the suffix, or one of images; None if it does not end so."""
    endings = (suffix.lower(),) if suffix else SUFFIXES
    return next((name[: -len(ending)] for ending in endings if name.lower().endswith(ending)), None)


def _name_in(text: str, files: Mapping[str, str], suffix: str) -> str | None:
    """The name that a line of a list means: itself, or the end of a path, with or without a suffix."""
    parts = PurePosixPath(text.lstrip("/")).parts
    for path in ("/".join(parts[first:]) for first in range(len(parts))):
        for name in (path, _without(path, suffix)):
            if name in files:
                return name
    return None
