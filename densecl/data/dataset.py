"""The base of all data sets: a subclass lists its files, all else is here."""

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from densecl.data import places
from densecl.data.decode import image_size, present, read_indices, read_rgb
from densecl.errors import DataError, SettingError, UnknownNameError
from densecl.settings.catalogue import source_hash

if TYPE_CHECKING:
    from torch import Tensor

VOID = 255

File = str | os.PathLike[str]
Progress = Callable[[int, int], None]  # called with (done, total)


class Sample(NamedTuple):
    """An image and its mask, as they are in the files."""

    image: "Tensor"  # (3, H, W) uint8 RGB
    # (H, W) uint8: 0 background, 1..n classes in the data set's official order, 255 void; or another truth, see
    # `DenseDataset.of`: (C, H, W) float32
    mask: "Tensor"


class DenseDataset:
    """Images with a mask each, or without, read on demand; picklable, and nothing changes after construction.

    A data set is a subclass that lists its files. All of `fields.py`, whose name is `fields.py:Fields`::

        from densecl.data.dataset import DenseDataset

        class Fields(DenseDataset):
            '''Aerial images of fields.'''

            class_names = ("wheat", "maize", "forest")  # ids 1, 2, 3 in the masks; 0 is background, 255 void
            splits = ("train", "test")

            def files(self, split):
                for image in sorted((self.root / split).glob("*.jpg")):
                    yield image.stem, image, image.with_suffix(".png")

    Annotated attributes (`season: str = "spring"`) are settings: `fields.py:Fields(season=autumn)`. Masks are 8-bit
    PNGs, palette or grey; for files of other kinds override `read_image`, `image_size` and `read_ids`.
    """

    # A subclass states:
    name: str = ""  # as `open_dataset` and records call it; by default the class's own
    aliases: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()  # without background, in official order; class c is `class_names[c - 1]`
    has_background: bool = True  # False: label 0 does not occur in masks
    label_of: Mapping[int, int] = MappingProxyType({})  # id in masks -> label, others are illegal; empty: themselves
    # turn images as EXIF says; False where masks were drawn on the pixels as stored, None where nobody knows
    upright: bool | None = True
    splits: tuple[str, ...] = ("train", "val", "test")  # a run needs train and test
    folders: tuple[str, ...] = ()  # usual names of its folder; the first is where a download puts it
    inside: tuple[str, ...] = ("",)  # where in that folder its own one may be
    layout: tuple[str, ...] = ()  # paths in its own folder that tell it from others; empty: any folder will do
    get_it: str = "put it in {place}"  # how to get it, and the folder to put it in
    counts: Mapping[str, int] = MappingProxyType({})  # images of each split in the published data
    paper: str = ""
    licence: str = ""
    truths: tuple[str, ...] = ()  # beside labels: "depth", "normals", "class"; see `truth_files` and `read_truth`
    image_classes: tuple[str, ...] = ()  # names for the truth "class"
    made: str = ""  # what `densecl data make` makes: "all", "masks" or nothing

    # An instance has, beside its `root`, `split` and `settings`:
    source: str  # lists and folders that the split was read from, for plans and records; `files` may set it
    ids: tuple[str, ...]  # unique in the split
    image_files: tuple[str, ...]  # strings: ten thousand Path objects cost more than reading their sizes
    mask_files: tuple[str, ...]  # without masks, the images again
    has_masks: bool  # False: every mask is background throughout
    labels: dict[int, int]  # `label_of`, in full
    truth: str = "labels"  # what `read` gives beside the image

    def __init_subclass__(cls) -> None:
        cls.name = vars(cls).get("name", cls.__name__)
        cls.folders = vars(cls).get("folders", (cls.name,))

    def __init__(self, root: Path, split: str, **settings: Any):
        """List the files of a split and check that they are there; none is opened.

        UnknownNameError for another split or setting; DataError for another layout, missing files, or no image at all.
        """
        if split not in self.splits:
            raise UnknownNameError("split", split, self.splits)
        folder = self.find(Path(root).expanduser())
        if folder is None:
            layout = f"no {type(self).__name__} layout ({', '.join(self.layout)}) in {root}"
            raise DataError(layout if self.layout else f"there is no folder {root}", self.hint())
        self.root, self.split, self.source = folder, split, split
        self.settings = settings
        self.configure(settings)
        listed = list(self.files(split))
        if wrong := [entry for entry in listed if not isinstance(entry, tuple | list) or len(entry) != 3]:
            fault = f"{type(self).__name__}.files gives {str(wrong[0])[:60]!r}"
            raise SettingError(fault, "give (id, image, mask) of each image, None as mask where there is none")
        files = [(str(i), os.fspath(image), mask and os.fspath(mask)) for i, image, mask in listed]
        if not files:
            raise DataError(f"no {split} images in {self.root} ({self.source})", self.hint())
        self.ids, self.image_files, masks = zip(*files, strict=True)
        if len({*self.ids}) < len(self):
            twice = next(i for i in self.ids if self.ids.count(i) > 1)
            raise DataError(f"{self.source} names {twice} more than once", "an image may be in a split once")
        self.has_masks = any(masks)
        if self.has_masks and not all(masks):
            some = f"{masks.count(None)} of {len(self)} images of {self.source} have no mask"
            raise DataError(some, "give all a mask, or none")
        self.mask_files = masks if self.has_masks else self.image_files
        places.check_files(f"masks of {self.source}", self.mask_files, self.hint())
        places.check_files(f"images of {self.source}", self.image_files, self.hint())
        self._samples: list[Sample | None] | None = None
        self._set_labels(self.label_of)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take the settings that a name gives, by default as attributes; files are listed after it."""
        if settings:
            from densecl.settings.arguments import resolve

            vars(self).update(resolve(type(self), DenseDataset, dict(settings), self.name))

    @classmethod
    def names_with(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The class names that it has with settings."""
        return cls.class_names

    def files(self, split: str) -> Iterable[tuple[str, File, File | None]]:
        """Give (id, image, mask) of each image of a split in a fixed order; the mask is None where there are none."""
        advice = "write one that gives (id, image, mask) of each image of a split"
        raise SettingError(f"{type(self).__name__} has no method files(split)", advice)

    def truth_files(self, truth: str) -> Sequence[File]:
        """The files of one of `truths`, one for each of `ids`."""
        raise SettingError(f"{type(self).__name__} has no method truth_files(truth)", "write one for its `truths`")

    def read_truth(self, i: int) -> np.ndarray:
        """Decode the map `i` of `truth`, from `mask_files`: (C, H, W) float32, 0 throughout where nothing is known.

        Depth, (1, H, W), is in metres along the optical axis. Normals, (3, H, W), are unit vectors: x to the right, y
        up, z to the viewer. Class, (1, H, W), is the number of the image's class throughout, from 1. Those of other
        names are as their task wants them.
        """
        raise SettingError(f"{type(self).__name__} has no method read_truth(i)", "write one for its `truths`")

    def extra_files(self, i: int) -> Mapping[str, File]:
        """Further maps of image `i` by name, 8-bit PNGs of its size; training moves them into `Batch.extra`."""
        return {}

    def domains(self) -> dict[str, np.ndarray]:
        """Sorted indices of the images of each domain, in the order of arrival; empty where there are no domains."""
        return {}

    # Where it is ------------------------------------------------------------------------------------------------------

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """The data set's own folder in or at `root`, if it is there."""
        return next((folder for inside in cls.inside if cls.has_layout(folder := root / inside)), None)

    @classmethod
    def has_layout(cls, folder: Path) -> bool:
        """True if a folder looks like this data set."""
        return any((folder / path).exists() for path in cls.layout) if cls.layout else folder.is_dir()

    @classmethod
    def search(cls, root: Path | None = None) -> Path | None:
        """As `locate`, but None where the data set is not, and nothing is drawn."""
        if not cls.layout and root is None:  # any folder would do
            root = places.data_folder() / cls.folders[0]
        base = Path(root or places.data_folder()).expanduser()
        for place in (base, *(base / name for name in cls.folders)):
            if (own := cls.find(place)) is not None:
                return own
        subfolders = sorted(p for p in base.iterdir() if p.is_dir() and p.name[0] != ".") if base.is_dir() else []
        others = [own for place in subfolders if (own := cls.find(place)) is not None]
        if len(others) > 1:
            several = ", ".join(map(str, others))
            raise DataError(f"several folders of {base} have this data set's layout: {several}", "name one with --data")
        return others[0] if others else None

    @classmethod
    def locate(cls, root: Path | None = None) -> Path:
        """Find the data set's own folder; a drawn data set is drawn if it is not there.

        It is `root` (the folder that the user named, or `places.data_folder()`), one of its subfolders `folders`, or
        its only other subfolder with the data set's layout. DataError if it is nowhere, or several have the layout.
        """
        folder = cls.search(root)
        if folder is not None:
            return folder
        base, given = Path(root or places.data_folder()).expanduser(), ""
        if root is None:
            given = " (from DENSECL_DATA)" if os.environ.get("DENSECL_DATA") else " (the default place)"
        state = "looked at it and at its subfolders" if base.is_dir() else "there is no such folder"
        names = ", ".join(cls.folders)
        raise DataError(f"no {cls.folders[0]} data in {base}{given}: {state} ({names})", cls.hint())

    @classmethod
    def get(cls, root: Path | None = None, progress: Progress | None = None) -> Path:
        """Download it to `root`, if that can be done unasked, else say how (DataError); its own folder."""
        return cls.locate(root)

    @classmethod
    def make(cls, root: Path | None = None, progress: Progress | None = None) -> Path:
        """Draw it below `root`, or its masks, unless they are there; DataError if nothing of it is drawn."""
        raise DataError(f"{cls.name} is not drawn", f"get it with `densecl data get {cls.name}`")

    @classmethod
    def hint(cls) -> str:
        """Advice on how to get the data set, and where to put it."""
        place = places.data_folder() / cls.folders[0]
        return f"{cls.get_it.format(place=place)}, or name its folder with --data or DENSECL_DATA"

    # What it holds ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.split!r}, {len(self)} images, {str(self.root)!r})"

    @property
    def code(self) -> str:
        """Hash of a user's own class, with its settings; empty for a packaged one."""
        source = source_hash(type(self))
        return source and f"{source} {sorted(self.settings.items())}"

    @property
    def content(self) -> str:
        """Hash of names and sizes of the images, the pixels of the masks, and `code`; equal for copies elsewhere."""
        from densecl.data.class_index import mask_contents  # which knows data sets

        digest = hashlib.sha256(f"{self.name}{self.code}".encode())
        for i, (name, image) in enumerate(zip(self.ids, self.image_files, strict=True)):
            for kind, file in {"": image, **self.extra_files(i)}.items():
                digest.update(f"{kind}{name} {places.size_of(file)}\n".encode())
        if self.has_masks:
            digest.update(mask_contents(self).digests.tobytes())
        return digest.hexdigest()

    def read(self, i: int) -> Sample:
        """Decode image and mask `i`; DataError if a file is unreadable, sizes differ, or an id is illegal."""
        if self._samples is not None and (sample := self._samples[i]) is not None:
            return sample
        import torch

        mask = self.read_mask(i) if self.truth == "labels" else self.read_truth(i)  # (H, W) or (C, H, W)
        image = self.read_image(i)  # (H, W, 3)
        self._check_size(i, image.shape[:2], mask.shape[-2:])
        sample = Sample(torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(mask))
        if self._samples is not None:
            self._samples[i] = sample
        return sample

    def read_extra(self, i: int) -> dict[str, np.ndarray]:
        """Decode the further maps of image `i`: (H, W) uint8 by name; errors as `read`."""
        maps = {name: read_indices(file) for name, file in self.extra_files(i).items()}
        for name, values in maps.items():
            if values.shape != (size := self.image_size(i)):
                shapes = " and its image ".join(f"{width}x{height}" for height, width in (values.shape, size))
                raise DataError(f"{name} {self.extra_files(i)[name]} is {shapes}", "make them of one size")
        return maps

    def read_image(self, i: int) -> np.ndarray:
        """Decode image `i` alone: (H, W, 3) uint8 RGB."""
        return read_rgb(self.image_files[i], upright=self.upright)

    def image_size(self, i: int) -> tuple[int, int]:
        """(height, width) of image `i`, from its header."""
        return image_size(self.image_files[i], upright=self.upright)

    def read_ids(self, i: int) -> np.ndarray:
        """Decode mask `i` to (H, W) uint8, the ids that are in the file."""
        return read_indices(self.mask_files[i])

    def read_mask(self, i: int) -> np.ndarray:
        """Decode mask `i` alone to (H, W) uint8 labels; errors as `read`."""
        if self._samples is not None and (sample := self._samples[i]) is not None:
            return sample.mask.numpy()
        if not self.has_masks:
            return np.zeros(self.image_size(i), np.uint8)
        ids, _ = self._legal_ids(i)
        return ids if self._identity else self._table[ids]

    def read_labels(self, i: int) -> np.ndarray:
        """(256,) bool: the labels that occur in mask `i`; of the image only the header is read. Errors as `read`."""
        return self.read_contents(i)[0]

    def read_contents(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """As `read_labels`, and a digest of the ids of all pixels, (16,) uint8; 0 where there are no masks.

        Of another truth than labels the digest is that of all its numbers.
        """
        size = self.image_size(i)
        if not self.has_masks:
            return np.arange(256) == 0, np.zeros(16, np.uint8)
        if self.truth != "labels":
            values = self.read_truth(i)
            self._check_size(i, size, values.shape[1:])
            return np.arange(256) == 0, _digest(values)
        ids, occurring = self._legal_ids(i)
        self._check_size(i, size, ids.shape)
        labels = np.zeros(256, dtype=bool)
        labels[self._table[occurring]] = True
        return labels, _digest(ids)

    def of(self, truth: str) -> Self:
        """The same images with another truth than labels; DataError if the data set has none, or files are missing."""
        if truth not in self.truths:
            has = f"beside labels it has: {', '.join(self.truths) or 'nothing'}"
            raise DataError(f"the data set '{self.name}' has no {truth} ({self.source})", has)
        other = copy.copy(self)
        other.truth, other.has_masks, other.class_names, other.has_background = truth, True, (), True
        other.mask_files = tuple(os.fspath(file) for file in self.truth_files(truth))
        places.check_files(f"files of {truth} of {self.source}", other.mask_files, self.hint())
        other._set_labels({})
        return other

    def without_masks(self) -> Self:
        """The same images for tasks that do not look at masks, which are then not read."""
        plain = copy.copy(self)
        plain.has_masks, plain.mask_files = False, self.image_files
        plain.class_names, plain.has_background = (), True
        plain._set_labels({})
        return plain

    def fits_in_memory(self, limit_bytes: int) -> bool:
        """True if all samples, decoded, would take at most `limit_bytes`, if all were as large as the first."""
        if not len(self):
            return True
        height, width = self.image_size(0)
        of_truth = height * width if self.truth == "labels" else self.read_truth(0).nbytes
        return len(self) * (3 * height * width + of_truth) <= limit_bytes

    def cached(self) -> Self:
        """A copy that keeps samples in memory once read (change none in place)."""
        keeping = copy.copy(self)
        vars(keeping)["_samples"] = [None] * len(self)
        return keeping

    def __getstate__(self) -> dict[str, Any]:  # copies, in other processes too, start without samples
        return {**vars(self), "_samples": None if self._samples is None else [None] * len(self)}

    def _set_labels(self, label_of: Mapping[int, int]) -> None:
        """Make the tables of all 256 ids."""
        own = {c: c for c in (*range(len(self.class_names) + 1), VOID)}
        self.labels = dict(label_of) or own
        self._legal = np.zeros(256, dtype=bool)
        self._table = np.full(256, VOID, dtype=np.uint8)
        for stored, label in self.labels.items():
            self._legal[stored] = True
            self._table[stored] = label
        self._identity = all(stored == label for stored, label in self.labels.items())

    def _legal_ids(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids of mask `i`, (H, W) uint8, and which of all ids occur in it, (256,) bool."""
        ids = self.read_ids(i)
        occurring = present(ids)
        illegal = np.flatnonzero(occurring & ~self._legal)
        if illegal.size:
            shown = ", ".join(map(str, illegal[:5])) + (", ..." if illegal.size > 5 else "")
            noun = "id" if illegal.size == 1 else "ids"
            fault = f"mask {self.mask_files[i]} holds the class {noun} {shown}"
            raise DataError(fault, f"legal in {self.name}: {_ranges(self.labels)}")
        return ids, occurring

    def _check_size(self, i: int, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
        if image != mask:
            raise DataError(
                f"mask {self.mask_files[i]} is {mask[1]}x{mask[0]}, "
                f"its image {self.image_files[i]} is {image[1]}x{image[0]}",
                "a mask has the width and height of its image",
            )


def _digest(values: np.ndarray) -> np.ndarray:
    """(16,) uint8 of the shape and all numbers of an array."""
    digest = hashlib.blake2b(values.tobytes(), digest_size=16, key=repr(values.shape).encode())
    return np.frombuffer(digest.digest(), np.uint8)


def _ranges(ids: Iterable[int]) -> str:
    """`0-20, 255` for the ids 0..20 and 255."""
    parts: list[list[int]] = []
    for stored in sorted(ids):
        if parts and stored == parts[-1][1] + 1:
            parts[-1][1] = stored
        else:
            parts.append([stored, stored])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
