"""Any folder of images, without masks: content for style transfer, colorization and autoencoding."""

import os
from pathlib import Path

from densecl.data.dataset import DenseDataset
from densecl.data.places import data_folder
from densecl.errors import DataError, UnknownNameError

FOLDERS = ("images",)
SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
EVERY = 10  # of a folder without splits, each tenth image by name is held back for val and test


def hint() -> str:
    """What such a folder looks like, and where to put it."""
    return (
        f"put images ({', '.join(SUFFIXES)}) in {data_folder() / FOLDERS[0]}, or in train, val and test below it, or "
        "name their folder with --data or DENSECL_DATA"
    )


def find(root: Path) -> Path | None:
    """The folder of images: `root` or `images` in it; None when neither holds any."""
    return next((place for place in (root, root / FOLDERS[0]) if _has_splits(place) or _names(place, deep=False)), None)


def locate(root: Path | None = None) -> Path:
    """As `find`, in `root`, or `DENSECL_DATA`, or the user's data folder.

    Raises:
        DataError: no images there.
    """
    base = Path(root).expanduser() if root is not None else data_folder()
    found = find(base)
    if found is None:
        raise DataError(f"no images in {base} or {base / FOLDERS[0]}", hint())
    return found


class ImageFolder(DenseDataset):
    """Images of a folder; `read` gives masks that are background throughout.

    With subfolders `train` and `val` or `test` each is a split, and one of the latter stands for both; else every tenth
    image by name is both `val` and `test`, and the others are `train`. Images of a split may lie in folders below it.
    """

    def __init__(self, root: Path, split: str):
        """List the images.

        Args:
            root: the folder.
            split: train, val or test.

        Raises:
            DataError: there are none for this split.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        folder = locate(root)
        source = folder
        if _has_splits(folder):
            wanted = {"train": ("train",), "val": ("val", "test"), "test": ("test", "val")}[split]
            source = next((folder / name for name in wanted if _names(folder / name)), folder / split)
            names = _names(source)
        else:
            held = split != "train"
            names = [n for i, n in enumerate(_names(folder, deep=False)) if (i % EVERY == EVERY - 1) == held]
        if not names:
            raise DataError(f"no {split} images in {source}", f"an unsplit folder needs {EVERY} images or more")
        super().__init__(
            "folder",
            folder,
            split,
            ids=names,
            images=[str(source / name) for name in names],
            masks=None,
            class_names=(),
            source=str(source),
        )


def _has_splits(folder: Path) -> bool:
    return bool(_names(folder / "train")) and any((folder / name).is_dir() for name in ("val", "test"))


def _names(folder: Path, *, deep: bool = True) -> list[str]:
    """Sorted paths of images in a folder, relative to it, and below it if `deep`; none when there is no such folder."""
    found = []
    for place, below, files in os.walk(folder):
        below[:] = [name for name in below if deep and not name.startswith(".")]
        found += [
            (Path(place) / name).relative_to(folder).as_posix()
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)
