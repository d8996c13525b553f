"""Folders of classes: images with one class each, in train/CLASS/IMAGE or CLASS/IMAGE, or as a known data set has it.

Known are CUB-200-2011, Stanford Cars, Flowers-102, WikiArt, TU-Berlin's sketches, Places365, ImageNet and the Visual
Decathlon. Their classes are of whole images, for the task `classification`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from densecl.data.dataset import DenseDataset
from densecl.data.decode import SUFFIXES
from densecl.data.maps import read_matrix
from densecl.data.places import data_folder, names_in, read_words
from densecl.errors import DataError, UnknownNameError

TEST = ("test", "val", "valid", "validation")  # folders or lists that may stand for the test images, the first there
Entry = tuple[str, str, str]  # id, class, path


class Known(NamedTuple):
    """A data set with a place and a layout of its own."""

    folders: tuple[str, ...]  # usual names of its folder
    counts: Mapping[str, int]  # images of each split in the published data
    get_it: str
    marker: str = ""  # a file that tells the layout of the original from folders of classes
    entries: "Callable[[Path, str], Iterator[Entry]] | None" = None  # that lists the original


class ClassFolders(DenseDataset):
    """Images with one class each: `class_folders(folder=DIR)`, or a known data set, `class_folders(like=cub)`.

    With folders `train` and `test` (or `val`) each is a split, and the classes are the folders in `train` by name. Else
    `train.txt` and `test.txt` name the images of a split, a path a line, or each `every`-th image of a class by name is
    a test image. All known data sets are read in this form as well.
    """

    name = "class_folders"
    folders = ("",)
    truths = ("class",)
    get_it = "put folders of classes below {place}"

    like: Literal["folders", "cub", "cars", "flowers", "wikiart", "sketch", "places365", "imagenet", "decathlon"] = (
        "folders"
    )
    folder: str = ""  # its folder, below the data folder; empty: the usual places of the known data set
    part: str = ""  # of decathlon, such as aircraft
    every: Annotated[int, Field(ge=2)] = 5  # without splits each so many-th image of a class is a test image

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take the settings, and the counts of a known data set."""
        super().configure(settings)
        if self.like == "decathlon" and self.part not in PARTS:
            raise UnknownNameError("part of decathlon", self.part, PARTS)
        if self.like != "folders":
            self.counts = KNOWN[self.like].counts

    @classmethod
    def search(cls, root: Path | None = None) -> Path | None:
        """The data folder: which of its folders is meant depends on settings."""
        return cls.find(Path(root or data_folder()).expanduser())

    @property
    def code(self) -> str:
        """Hash of the classes of all images."""
        return hashlib.sha256(repr((self.image_classes, self._numbers)).encode()).hexdigest()

    def files(self, split: str) -> list[tuple[str, str, None]]:
        """The images of a split, by class and name."""
        self.root, known = self._own_folder(), KNOWN.get(self.like)
        if known and known.entries and (self.root / known.marker).is_file():
            self.source = f"{split} of {self.like}"
            entries, classes = list(known.entries(self.root, split)), None
        else:
            entries, classes = self._by_folder(split)
        self.image_classes = classes or tuple(dict.fromkeys(sorted(name for _, name, _ in entries)))
        if len(self.image_classes) < 2:
            raise DataError(f"{self.root} has one class, '{''.join(self.image_classes)}'", "give it two or more")
        number = {name: k for k, name in enumerate(self.image_classes, 1)}
        self._numbers = tuple(number[name] for _, name, _ in entries)
        return [(i, path, None) for i, _, path in entries]

    def truth_files(self, truth: str) -> list[str]:
        """The images: their folders, or lists, say the class."""
        return list(self.image_files)

    def read_truth(self, i: int) -> np.ndarray:
        """The class of image `i`."""
        return np.full((1, *self.image_size(i)), self._numbers[i], np.float32)

    def _own_folder(self) -> Path:
        """The folder of the data set; DataError where it is not."""
        if self.folder:
            if (named := self.root / Path(self.folder).expanduser()).is_dir():
                return named
            raise DataError(f"there is no folder {named}", "write class_folders(folder=...) below the data folder")
        if self.like == "folders":
            return self.root
        known = KNOWN[self.like]
        places = [self.root / name for name in known.folders]
        places += (
            [self.root] if self.root.name in known.folders or (self.root / (known.marker or "-")).is_file() else []
        )
        own = next((place for place in places if place.is_dir()), None)
        if own is None:
            names = ", ".join(known.folders)
            advice = f"{known.get_it}, or name its folder: class_folders(like={self.like}, folder=DIR)"
            raise DataError(f"no {self.like} data in {self.root}: looked for {names}", advice)
        return own / self.part if self.like == "decathlon" else own

    def _by_folder(self, split: str) -> tuple[list[Entry], tuple[str, ...]]:
        """The images in folders of classes, and the classes."""
        if classes := _classes(self.root / "train"):
            own = next((name for name in _wanted(split) if _classes(self.root / name)), None)
            if own is None:
                raise DataError(f"{self.root} has train, and no {' or '.join(_wanted(split))}", "get its test images")
            self.source = own
            if unknown := sorted({*_classes(self.root / own)} - {*classes}):
                raise DataError(f"{self.root / own} has the class '{unknown[0]}', and train has not", "give it to both")
            return list(_images(self.root / own, classes)), classes
        classes = _classes(self.root)
        if not classes:
            fault = f"{self.root} has no folders of classes"
            raise DataError(fault, "put images in train/CLASS and test/CLASS, or in CLASS, below it")
        if (self.root / "train.txt").is_file():
            listed = next((name for name in _wanted(split) if (self.root / f"{name}.txt").is_file()), "test")
            self.source = f"{listed}.txt"
            return list(_listed(self.root, self.root / self.source, classes, self.hint())), classes
        self.source = f"each {self.every}th image of a class" + ("" if split != "train" else ", left out")
        entries = []
        for name in classes:
            own = list(_images(self.root, (name,)))
            entries += [e for k, e in enumerate(own) if (k % self.every == self.every - 1) == (split != "train")]
        return entries, classes


def _wanted(split: str) -> tuple[str, ...]:
    """Names of folders or lists that may be a split."""
    return {"train": ("train",), "val": (*TEST[1:], "test")}.get(split, TEST)


def _classes(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a folder that hold images, sorted; none if it is absent."""
    names = sorted(name for name in names_in(folder) if name[0] != ".")
    return tuple(name for name in names if any(map(_is_image, names_in(folder / name))))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and name[0] != "."


def _images(folder: Path, classes: tuple[str, ...]) -> Iterator[Entry]:
    """The images of classes, by name."""
    for name in classes:
        for file in sorted(filter(_is_image, names_in(folder / name))):
            yield f"{name}/{file}", name, str(folder / name / file)


def _listed(root: Path, list_file: Path, classes: tuple[str, ...], hint: str) -> Iterator[Entry]:
    """The images of a list of paths CLASS/IMAGE; a number behind a path is not read."""
    for words in read_words(list_file, hint):
        line = " ".join(words[:-1] if len(words) > 1 and words[-1].isdecimal() else words)
        path = PurePosixPath(line.lstrip("/"))
        if len(path.parts) < 2 or path.parts[-2] not in classes or ".." in path.parts:
            raise DataError(f"{list_file} has the line '{line[:60]}'", "write CLASS/IMAGE, of the classes there")
        yield "/".join(path.parts[-2:]), path.parts[-2], str(root / path)


# ---- layouts of their own


def _cub(root: Path, split: str) -> Iterator[Entry]:
    """CUB-200-2011: lists of numbers and paths, and of numbers and 1 for training images."""
    trained = {words[0]: words[-1] == "1" for words in read_words(root / "train_test_split.txt", AGAIN)}
    for words in read_words(root / "images.txt", AGAIN):
        if len(words) != 2 or words[0] not in trained or words[1].count("/") != 1:
            raise DataError(f"{root / 'images.txt'} has the line '{' '.join(words)[:60]}'", AGAIN)
        if trained[words[0]] == (split == "train"):
            yield words[1], words[1].partition("/")[0], str(root / "images" / words[1])


def _cars(root: Path, split: str) -> Iterator[Entry]:
    """Stanford Cars: annotations in devkit, those of test images with labels beside or in it."""
    cells = read_matrix(root / CARS_MARKER, "class_names", AGAIN).ravel()
    names = [str(np.asarray(cell).ravel()[0]) for cell in cells if np.asarray(cell).size]
    file = "cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
    place = root / "devkit" / file
    rows = read_matrix(place if place.is_file() or split == "train" else root / file, "annotations", AGAIN).ravel()
    folder = root / ("cars_train" if split == "train" else "cars_test")
    try:
        for row in rows:
            image = str(row["fname"].item())
            yield image, names[int(row["class"].item()) - 1], str(folder / image)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{file} of {root} has not the fields fname and class", AGAIN) from error


def _flowers(root: Path, split: str) -> Iterator[Entry]:
    """Flowers-102: numbers of images; training has the validation images too, 2,040 as in PackNet and Piggyback."""
    labels = read_matrix(root / FLOWERS_MARKER, "labels", AGAIN).ravel()
    keys = ("trnid", "valid") if split == "train" else ("tstid",)
    numbers = np.concatenate([read_matrix(root / "setid.mat", key, AGAIN).ravel() for key in keys])
    if len(numbers) and not 0 < numbers.min() <= numbers.max() <= len(labels):
        raise DataError(f"{root / 'setid.mat'} numbers images that {FLOWERS_MARKER} does not", AGAIN)
    for number in numbers.tolist():
        name = f"image_{number:05d}.jpg"
        yield name, f"{int(labels[number - 1]):03d}", str(root / "jpg" / name)


AGAIN = "get it again"
CARS_MARKER, FLOWERS_MARKER = "devkit/cars_meta.mat", "imagelabels.mat"
PARTS = ("aircraft", "cifar100", "daimlerpedcls", "dtd", "gtsrb", "imagenet12", "omniglot", "svhn", "ucf101",
         "vgg-flowers")  # fmt: skip
KNOWN: Mapping[str, Known] = MappingProxyType({
    "cub": Known(("CUB_200_2011", "cub"), {"train": 5994, "test": 5794},
                 "get CUB_200_2011.tgz of https://www.vision.caltech.edu/datasets/cub_200_2011", "images.txt", _cub),
    "cars": Known(("stanford_cars", "cars"), {"train": 8144, "test": 8041},
                  "get cars_train, cars_test and devkit of Krause et al., 2013", CARS_MARKER, _cars),
    "flowers": Known(("flowers-102", "oxford-102", "flowers"), {"train": 2040, "test": 6149},
                     "get 102flowers.tgz, imagelabels.mat and setid.mat of "
                     "https://www.robots.ox.ac.uk/~vgg/data/flowers/102", FLOWERS_MARKER, _flowers),
    "wikiart": Known(("wikiart",), {"train": 42129, "test": 10628}, "put WikiArt's artists in train/CLASS, test/CLASS"),
    "sketch": Known(("sketches", "sketch"), {"train": 16000, "test": 4000},
                    "get sketches_png.zip of https://cybertron.cg.tu-berlin.de/eitz/projects/classifysketch"),
    "places365": Known(("places365_standard", "places365"), {"train": 1803460, "test": 36500},
                       "get places365standard_easyformat.tar of http://places2.csail.mit.edu"),
    "imagenet": Known(("imagenet", "ILSVRC2012"), {"train": 1281167, "test": 50000},
                      "get ILSVRC 2012 of https://image-net.org, images of val in folders of classes"),
    "decathlon": Known(("decathlon-1.0", "decathlon"), {},
                       "get decathlon-1.0-data.tar.gz of https://www.robots.ox.ac.uk/~vgg/decathlon"),
})  # fmt: skip
