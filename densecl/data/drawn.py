"""Drawn data sets: drawn once into the cache, and read back like any VOC tree."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from densecl.data.drawing import Drawing, find_tree, write_tree, write_whole
from densecl.data.places import cache_folder
from densecl.data.voc import VOC


class DrawnVOC(VOC):
    """A drawn data set, read by the VOC reader; its val split is for tuning.

    Attributes:
        NAME: of the data set.
        VERSION: the first digits of the hash of all pixels (pinned in a test): a changed pixel is a new folder.
        CLASSES: names in the order of their labels.
        SPLITS: number of images and seed of `train`, `val` and `test`.
        draw: so many images from a seed.
    """

    NAME: ClassVar[str]
    VERSION: ClassVar[str]
    CLASSES: ClassVar[tuple[str, ...]]
    SPLITS: ClassVar[Mapping[str, tuple[int, int]]]
    draw: ClassVar[Callable[[int, int], Drawing]]

    def __init__(self, root: Path, split: str):
        """Read a folder that `write` made.

        Args:
            root: that folder.
            split: train, val, test or trainval.
        """
        again = f"delete the folder {root}; it is drawn again"
        super().__init__(root, split, name=self.NAME, class_names=self.CLASSES, advice=again)

    @property
    def content(self) -> str:
        """The version of the drawing, which pins the pixels; how PNG packs them differs between machines."""
        return f"{self.NAME} {self.VERSION} {self.split}"

    @classmethod
    def hint(cls) -> str:
        """How to get it."""
        return f"draw it with `densecl data make {cls.NAME}`"

    @classmethod
    def folder(cls, parent: Path | None = None) -> Path:
        """Where the data set lies below `parent` (default: the cache), drawn or not."""
        return (parent or cache_folder()) / f"{cls.NAME}-{cls.VERSION}"

    @classmethod
    def find(cls, root: Path) -> Path | None:
        """The drawn data set in or at `root`; None when there is none."""
        return find_tree((cls.folder(root), root), cls.CLASSES)

    @classmethod
    def write(cls, root: Path | None = None) -> Path:
        """Draw the data set in VOC layout, unless it is there.

        Args:
            root: the folder to make; default `folder()`.

        Returns:
            The folder.

        Raises:
            RunError: it cannot be written.
        """
        return write_whole(cls.folder() if root is None else Path(root), cls._fill)

    @classmethod
    def _fill(cls, root: Path) -> None:
        """Draw all splits into `root`, an empty folder."""
        write_tree(root, ((split, cls.draw(n, seed)) for split, (n, seed) in cls.SPLITS.items()), cls.CLASSES)
