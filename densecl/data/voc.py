"""Pascal VOC 2012, and any data set in its layout."""

import os
from pathlib import Path, PurePosixPath

from densecl.data.dataset import DenseDataset
from densecl.data.places import check_files, data_folder, names_in
from densecl.errors import DataError, UnknownNameError

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
FOLDERS = ("voc2012", "voc", "VOCdevkit", "VOC2012")
SPLITS = ("train", "val", "test", "trainval")

_LISTS = Path("ImageSets", "Segmentation")
_MASKS = "SegmentationClass"
_AUGMENTED = "SegmentationClassAug"


def find(root: Path) -> Path | None:
    """The VOC2012 folder in or at `root`: the one with the lists or the images; None when there is none."""
    for folder in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (folder / _LISTS).is_dir() or (folder / "JPEGImages").is_dir():
            return folder
    return None


def hint() -> str:
    """How to get VOC 2012, and where to put it."""
    place = data_folder() / FOLDERS[0] / "VOCdevkit" / "VOC2012"
    return f"get it with `densecl data get voc2012`, put it at {place}, or name its folder with --data or DENSECL_DATA"


class VOC(DenseDataset):
    """Pascal VOC 2012 (Everingham et al., IJCV 2015), with SBD's masks (Hariharan et al., ICCV 2011) when there.

    `train` is `train_aug.txt` with `SegmentationClassAug` when both exist (10,582 images), else `train.txt` with
    `SegmentationClass` (1,464). `test` is `val` (1,449), as in the field, whose test masks are not public; a tree
    with a `test.txt` whose masks are there is read by it. Images are JPEGs, or PNGs of the same name.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        name: str = "voc",
        class_names: tuple[str, ...] = CLASS_NAMES,
        advice: str = "",
    ):
        """Read the lists and compare them with the folders.

        Args:
            root: the VOC2012 folder or up to two above it.
            split: train, val, test or trainval.
            name: the data set, for another one in this layout.
            class_names: its classes.
            advice: what to do when files are missing; default `hint()`.

        Raises:
            DataError: a folder or a list is missing, or a list names absent files.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        advice = advice or hint()
        folder = find(Path(root).expanduser())
        if folder is None:
            raise DataError(f"no VOC layout (JPEGImages, {_MASKS}, {_LISTS}) in {root}", advice)
        list_name, masks = _choose(folder, split)
        for needed in (folder / "JPEGImages", folder / masks):
            if not needed.is_dir():
                raise DataError(f"the folder {needed} is missing", advice)
        list_file = folder / _LISTS / f"{list_name}.txt"
        ids = _read_ids(list_file, advice)
        mask_names = [f"{i}.png" for i in ids]
        check_files(f"masks that {list_file.name} names", folder / masks, mask_names, names_in(folder / masks), advice)
        there = names_in(folder / "JPEGImages")
        image_names = [f"{i}.png" if f"{i}.jpg" not in there and f"{i}.png" in there else f"{i}.jpg" for i in ids]
        check_files(f"images that {list_file.name} names", folder / "JPEGImages", image_names, there, advice)
        super().__init__(
            name,
            folder,
            split,
            ids=ids,
            images=[str(folder / "JPEGImages") + os.sep + n for n in image_names],
            masks=[str(folder / masks) + os.sep + n for n in mask_names],
            class_names=class_names,
            source=f"{list_file.name} + {masks}",
        )


def _choose(folder: Path, split: str) -> tuple[str, str]:
    """The list and the folder of masks of a split."""
    augmented = (folder / _AUGMENTED).is_dir()
    # some trees hold the merged masks alone: they contain those of the official split too
    plain = _AUGMENTED if augmented and not (folder / _MASKS).is_dir() else _MASKS
    if split == "train" and augmented and (folder / _LISTS / "train_aug.txt").is_file():
        return "train_aug", _AUGMENTED
    if split == "test":
        # VOC's own test archive brings a test.txt without masks: that is not a test split one can measure on
        own = folder / _LISTS / "test.txt"
        first = _read_ids(own, "")[0] if own.is_file() else None
        return ("test" if first is not None and (folder / plain / f"{first}.png").is_file() else "val"), plain
    return split, plain


def _read_ids(list_file: Path, advice: str) -> list[str]:
    """The ids of a list: one a line, or `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`."""
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"the list {list_file} is missing", advice) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {list_file} cannot be read", advice) from error
    first = [line.split()[0] for line in lines if line.strip()]
    ids = [PurePosixPath(word).stem if "/" in word else word for word in first]
    if not ids:
        raise DataError(f"the list {list_file} is empty", advice)
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"the list {list_file} names {twice} more than once", "an image may be in a split once")
    return ids
