"""Data sets by name. Importing this package reads nothing and does not import torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from densecl.errors import UnknownNameError

if TYPE_CHECKING:
    from densecl.data.dataset import DenseDataset

NAMES = ("voc", "camvid", "shapes")
_ALIASES = {"voc2012": "voc"}


def canonical(name: str) -> str:
    """The name of a data set, `voc` for `voc2012`.

    Raises:
        UnknownNameError: there is no such data set.
    """
    name = _ALIASES.get(name, name)
    if name not in NAMES:
        raise UnknownNameError("data set", name, NAMES)
    return name


def locate(name: str, root: Path | None = None) -> Path:
    """The data set's own folder.

    Looked at are `root`, else `DENSECL_DATA`, else the user's data folder: the folder itself and its subfolders. The
    embedded `shapes` is drawn into the cache when it is not there; a `root` is used for it only if it holds it.

    Args:
        name: `voc`, `camvid` or `shapes`.
        root: a folder that the user named.

    Raises:
        UnknownNameError: another name.
        DataError: it is nowhere; the message lists the places and how to get it.
    """
    from densecl.data import camvid, places, shapes, voc

    name = canonical(name)
    if name == "shapes":
        return (shapes.find(Path(root).expanduser()) if root is not None else None) or shapes.write()
    reader = {"voc": voc, "camvid": camvid}[name]
    return places.find_folder(reader.FOLDERS, reader.find, root, reader.hint())


def open_dataset(name: str, split: str, root: Path | None = None) -> "DenseDataset":
    """The reader of a split.

    Args:
        name: `voc`, `camvid` or `shapes`.
        split: `train`, `val`, `test` or `trainval`.
        root: a folder that the user named; default see `locate`.

    Raises:
        UnknownNameError: no such data set or split.
        DataError: the data is missing or incomplete.
    """
    from densecl.data.camvid import CamVid
    from densecl.data.shapes import Shapes
    from densecl.data.voc import VOC

    name = canonical(name)
    return {"voc": VOC, "camvid": CamVid, "shapes": Shapes}[name](locate(name, root), split)
