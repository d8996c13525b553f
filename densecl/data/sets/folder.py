"""Any folder of images, without masks: content for style transfer, colorization and autoencoding."""

import os
from pathlib import Path

from densecl.data.dataset import DenseDataset
from densecl.data.places import data_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
EVERY = 10  # of a folder without splits, each tenth image by name is held back for val and test


class ImageFolder(DenseDataset):
    """Images of a folder; `read` gives masks that are background throughout.

    With subfolders `train` and `val` or `test` each is a split, and one of the latter stands for both; else every tenth
    image by name is both `val` and `test`, and the others are `train`. Images of a split may lie in folders below it.
    """

    name = "folder"
    folders = ("images",)
    inside = ("", "images")
    layout = ("train and val or test", f"{EVERY} images or more")
    get_it = f"put {EVERY} images or more ({', '.join(SUFFIXES)}) in {{place}}, or in train, val and test below it"

    @classmethod
    def has_layout(cls, folder: Path) -> bool:
        """True if the folder, or its `train`, holds images."""
        return _has_splits(folder) or bool(_names(folder, deep=False))

    @classmethod
    def search(cls, root: Path | None = None) -> Path | None:
        """The folder of images: `root` or the data folder, or `images` in it; others are not looked into."""
        return cls.find(Path(root or data_folder()).expanduser())

    def files(self, split: str) -> list[tuple[str, str, None]]:
        """List the images; an id is the path in the split's folder."""
        source = self.root
        if _has_splits(self.root):
            wanted = {"train": ("train",), "val": ("val", "test"), "test": ("test", "val")}[split]
            source = next((self.root / name for name in wanted if _names(self.root / name)), self.root / split)
            names = _names(source)
        else:
            held = split != "train"
            names = [n for i, n in enumerate(_names(self.root, deep=False)) if (i % EVERY == EVERY - 1) == held]
        self.source = str(source)
        return [(name, str(source / name), None) for name in names]


def _has_splits(folder: Path) -> bool:
    return bool(_names(folder / "train")) and any((folder / name).is_dir() for name in ("val", "test"))


def _names(folder: Path, *, deep: bool = True) -> list[str]:
    """Sorted paths of images in a folder, relative to it, and below it if `deep`; none when there is no such folder."""
    names = []
    for place, below, files in os.walk(folder):
        below[:] = [name for name in below if deep and not name.startswith(".")]
        names += [
            (Path(place) / name).relative_to(folder).as_posix()
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(names)
