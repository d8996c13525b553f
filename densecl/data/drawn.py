"""Drawn data sets: drawn once into the cache, and read back like any VOC tree."""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from densecl.data.dataset import Progress
from densecl.data.decode import write_mask
from densecl.data.places import cache_folder
from densecl.data.sets.voc import LISTS, MASKS, VOC
from densecl.files import locked, write_error

MARK = "classes.txt"  # tells a drawn folder from other VOC trees


class DrawnVOC(VOC):
    """A drawn data set, read by the VOC reader; its val split is for tuning."""

    version: str  # first digits of the hash of all pixels (pinned in a test): a changed pixel is a new folder
    seeds: Mapping[str, int]  # of each split that is drawn; `counts` says how many images
    content_folders: tuple[str, ...] = ("JPEGImages", MASKS)
    aliases = ()
    counts = MappingProxyType({"train": 2000, "val": 250, "test": 500})
    paper = "densecl"
    licence = "MIT"
    made = "all"

    @staticmethod
    def draw(n: int, seed: int) -> Any:
        """Draw `n` images, a `Drawing` or one with more; from a seed they are the same pixels on every machine."""
        raise NotImplementedError

    @property
    def content(self) -> str:
        """The version of the drawing, which pins the pixels; how PNG packs them differs between machines."""
        return f"{self.name} {self.version} {self.split}"

    @classmethod
    def hint(cls) -> str:
        """Advice on how to get it."""
        return f"`densecl data make {cls.name}` draws it, again if you delete a broken folder"

    @classmethod
    def folder(cls, parent: Path | None = None) -> Path:
        """The data set's place below `parent` (default: the cache), drawn or not."""
        return (parent or cache_folder()) / f"{cls.name}-{cls.version}"

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """The drawn data set in or at `root`; None when there is none."""
        classes = "".join(f"{name}\n" for name in cls.class_names)
        marked = (place for place in (cls.folder(root), root) if (place / MARK).is_file())
        return next((place for place in marked if (place / MARK).read_text(encoding="utf-8") == classes), None)

    @classmethod
    def search(cls, root: Path | None = None) -> Path | None:
        """The drawn folder in `root`, else in the cache."""
        return (cls.find(Path(root).expanduser()) if root is not None else None) or cls.find(cls.folder())

    @classmethod
    def locate(cls, root: Path | None = None) -> Path:
        """As `search`; drawn into the cache if it is nowhere."""
        return cls.search(root) or cls.write(cls.folder())

    @classmethod
    def make(cls, root: Path | None = None, progress: Progress | None = None) -> Path:
        """Draw it below `root` (default: the cache), unless it is there."""
        return cls.write(cls.folder(None if root is None else Path(root).expanduser()))

    get = make

    @classmethod
    def write(cls, root: Path) -> Path:
        """Draw all splits in VOC layout into the folder `root`, unless it is there; RunError if that cannot be."""
        return write_whole(root, cls._fill)

    @classmethod
    def _fill(cls, root: Path) -> None:
        lists = root / LISTS
        for folder in (lists, *(root / name for name in cls.content_folders)):
            folder.mkdir(parents=True)
        trainval: list[str] = []
        for split, seed in cls.seeds.items():
            drawing = cls.draw(cls.counts[split], seed)
            ids = [f"{split}_{i:04d}" for i in range(len(drawing.images))]
            for i, name in enumerate(ids):
                cls.write_sample(root, f"{name}.png", drawing, i)
            cls.write_split(root, ids, drawing)
            _write_lines(lists / f"{split}.txt", ids)
            trainval += ids if split != "test" else []
        _write_lines(lists / "trainval.txt", trainval)
        _write_lines(root / MARK, cls.class_names)

    @classmethod
    def write_sample(cls, root: Path, name: str, drawing: Any, i: int) -> None:
        """Write image and mask `i` of a drawing."""
        # light compression: half the time, and the files are small
        Image.fromarray(drawing.images[i]).save(f"{root}{os.sep}JPEGImages{os.sep}{name}", compress_level=1)
        write_mask(drawing.masks[i], f"{root}{os.sep}{MASKS}{os.sep}{name}")

    @classmethod
    def write_split(cls, root: Path, ids: list[str], drawing: Any) -> None:
        """Write what is kept of a split as a whole; nothing, but for classes of whole images."""


def write_whole(root: Path, fill: Callable[[Path], None]) -> Path:
    """Make a folder, unless it is there; it is whole or absent, however many processes ask.

    `fill` writes the content into an empty folder beside its place, which is then renamed, under a lock.
    """
    if root.is_dir():
        return root
    try:
        with locked(root.parent / f".{root.name}.lock", lambda: None, f".{root.name}.*"):
            if not root.is_dir():
                with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as temporary:
                    folder = Path(temporary) / root.name
                    folder.mkdir()
                    fill(folder)
                    folder.rename(root)
    except OSError as error:
        raise write_error(root, error) from error
    return root


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
