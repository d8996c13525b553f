"""Data sets by name. Importing this package reads nothing and does not import torch."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from densecl.errors import UnknownNameError

if TYPE_CHECKING:
    from densecl.data.dataset import DenseDataset
    from densecl.data.drawn import DrawnVOC

DRAWN = ("shapes", "figures", "tints")
NAMES = ("voc", "camvid", *DRAWN, "ade20k", "cityscapes", "coco", "folder")
_ALIASES = {"voc2012": "voc", "ade": "ade20k", "coco2017": "coco"}
_CLASSES = {
    "voc": "VOC",
    "camvid": "CamVid",
    "shapes": "Shapes",
    "figures": "Figures",
    "tints": "Tints",
    "ade20k": "ADE20K",
    "cityscapes": "Cityscapes",
    "coco": "COCO",
    "folder": "ImageFolder",
}


def canonical(name: str) -> str:
    """The name of a data set, `voc` for `voc2012`.

    Raises:
        UnknownNameError: there is no such data set.
    """
    name = _ALIASES.get(name, name)
    if name not in NAMES:
        raise UnknownNameError("data set", name, NAMES)
    return name


def advice(name: str) -> str:
    """How to get a data set, and where to put it."""
    return _source(canonical(name)).hint()


def locate(name: str, root: Path | None = None) -> Path:
    """The data set's own folder.

    Looked at are `root`, else `DENSECL_DATA`, else the user's data folder: the folder itself and its subfolders. The
    drawn ones (`DRAWN`) are drawn into the cache when they are not there; a `root` is used for them only if it holds
    them. A `folder` is `root` or the first of these places itself, or `images` in it.

    Args:
        name: one of NAMES.
        root: a folder that the user named.

    Raises:
        UnknownNameError: another name.
        DataError: it is nowhere; the message lists the places and how to get it.
    """
    from densecl.data import places

    name = canonical(name)
    reader = _source(name)
    if name in DRAWN:
        return (reader.find(Path(root).expanduser()) if root is not None else None) or reader.write()
    if name == "folder":
        return reader.locate(root)
    return places.find_folder(reader.FOLDERS, reader.find, root, reader.hint())


def find(name: str, root: Path | None = None) -> Path | None:
    """The data set's own folder as `locate` finds it, None where it is not; nothing is drawn or written.

    Raises:
        UnknownNameError: another name. DataError: several folders have its layout.
    """
    from densecl.data import places

    name = canonical(name)
    reader = _source(name)
    if name in DRAWN:
        return (reader.find(Path(root).expanduser()) if root is not None else None) or reader.find(reader.folder())
    try:
        return locate(name, root)
    except places.NotFoundError:
        return None


def open_dataset(name: str, split: str, root: Path | None = None) -> "DenseDataset":
    """The reader of a split.

    Args:
        name: one of NAMES.
        split: `train`, `val`, `test` or, where the data set has it, `trainval`.
        root: a folder that the user named; default see `locate`.

    Raises:
        UnknownNameError: no such data set or split.
        DataError: the data is missing or incomplete.
    """
    name = canonical(name)
    return _class(name)(locate(name, root), split)


def drawn_set(name: str) -> "type[DrawnVOC]":
    """The class of one of `DRAWN`."""
    return _class(canonical(name))


def _source(name: str) -> Any:
    """What knows a data set's places (`hint`, `find`, `FOLDERS`): its module, of the drawn ones the class."""
    return _class(name) if name in DRAWN else _module(name)


def _class(name: str) -> Any:
    return getattr(_module(name), _CLASSES[name])


def _module(name: str) -> ModuleType:
    """The module of a data set, imported when it is asked for."""
    return importlib.import_module(f"densecl.data.{name}")
