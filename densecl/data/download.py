"""Download of VOC 2012 and SBD through torchvision; SBD's masks are merged into VOC.

Every stage that is finished is recognised and skipped, so the same command goes on after an interruption.
"""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from densecl.data.class_index import for_each
from densecl.data.dataset import Progress
from densecl.data.decode import write_mask
from densecl.data.places import names_in, read_words
from densecl.data.sets.voc import AUGMENTED, LISTS, MASKS, VOC
from densecl.errors import DataError, RunError
from densecl.files import write_error, write_text

_DISK = 9 << 30  # VOC: archive 2 GB, tree 2 GB; SBD: archive 1.4 GB, tree 1.8 GB; the rest is room


def get_voc(root: Path, progress: Progress | None = None) -> Path:
    """Download VOC 2012 and SBD below `root` and merge them; the VOC2012 folder.

    DataError if a file cannot be fetched, with the place to put it by hand; RunError if it cannot be written.
    """
    from torchvision.datasets import SBDataset, VOCSegmentation
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    folder, sbd = root / "VOCdevkit" / "VOC2012", root / "sbd"
    lists, sbd_lists = folder / LISTS, [sbd / "train.txt", sbd / "val.txt"]
    official = _complete([lists / "train.txt", lists / "val.txt"], folder / MASKS, ".png")
    if official and _complete([lists / "train_aug.txt"], folder / AUGMENTED, ".png"):
        return folder
    _check_space(root)
    if not official:
        archive = DATASET_YEAR_DICT["2012"]
        place = root / archive["filename"]
        _fetch(lambda: VOCSegmentation(str(root), year="2012", image_set="val", download=True), archive["url"], place)
    if not _complete(sbd_lists, sbd / "cls", ".mat"):
        for rest in ("cls", "img", "inst", "benchmark_RELEASE"):  # of an interrupted extraction: torchvision trips
            shutil.rmtree(sbd / rest, ignore_errors=True)
        for path in sbd_lists:
            path.unlink(missing_ok=True)
        place = sbd / SBDataset.filename
        _fetch(lambda: SBDataset(str(sbd), image_set="train", download=True), SBDataset.url, place)
    count, published = merge_sbd(folder, sbd, progress), VOC.counts["train"]
    if count != published:
        raise DataError(f"{lists / 'train_aug.txt'} has {count} images, not {published}", f"delete {root}, start over")
    return folder


def merge_sbd(folder: Path, sbd: Path, progress: Progress | None = None) -> int:
    """Write `SegmentationClassAug` and `train_aug.txt`: SBD's masks for VOC's images, VOC's own where it has them.

    The images are SBD's train and val and VOC's train, without VOC's val, so that no image is in training and in
    evaluation. Their number is returned. `folder` is VOC2012's, with `SegmentationClass` and its lists; `sbd` has SBD's
    `cls` (a .mat file an image), `train.txt` and `val.txt`. DataError if a list or a mask is missing or broken,
    RunError if it cannot be written.
    """
    own = set(_ids(folder / LISTS / "train.txt"))
    both = own.union(_ids(sbd / "train.txt"), _ids(sbd / "val.txt"))
    ids = sorted(both.difference(_ids(folder / LISTS / "val.txt")))
    masks = folder / AUGMENTED

    def convert(i: int) -> None:
        target = masks / f"{ids[i]}.png"
        if target.exists():
            return
        part = masks / f".{ids[i]}.part"
        if ids[i] in own:
            shutil.copyfile(folder / MASKS / f"{ids[i]}.png", part)
        else:
            write_mask(read_sbd_mask(sbd / "cls" / f"{ids[i]}.mat"), part)
        part.replace(target)

    try:
        masks.mkdir(exist_ok=True)
        for_each(convert, len(ids), progress=progress)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing", "delete the folder sbd and run the command again") from error
    except OSError as error:
        raise write_error(masks, error) from error
    # last: without the list no reader looks at a half-filled folder
    write_text(folder / LISTS / "train_aug.txt", "".join(f"{i}\n" for i in ids))
    return len(ids)


def read_sbd_mask(path: Path) -> np.ndarray:
    """Read the mask of an SBD .mat file, `GTcls.Segmentation`: (H, W) uint8, 0..20."""
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"SBD mask {path} is missing", "delete the folder sbd and run the command again")
    try:
        mask = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # scipy raises many kinds for a broken file
        raise DataError(f"SBD mask {path} cannot be read: {error}", "delete it and run the command again") from error
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.max(initial=0) > len(VOC.class_names):
        raise DataError(f"SBD mask {path} is no (height, width) array of class ids 0-20", "fetch SBD again")
    return mask


def _complete(lists: list[Path], folder: Path, ending: str) -> bool:
    """True if the lists exist and every file they name is in `folder`."""
    there = names_in(folder)
    listed = (path.is_file() and there.issuperset(i + ending for i in _ids(path)) for path in lists)
    return folder.is_dir() and all(listed)


def _fetch(download: Callable[[], object], url: str, place: Path) -> None:
    """Run a download of torchvision; its errors become one line that says what to fetch by hand."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        download()
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError, a wrong check sum a RuntimeError
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise write_error(place, error) from error
        reason = str(getattr(error, "reason", None) or error).strip(". ")
        raise DataError(
            f"cannot download {place.name} ({reason})",
            f"fetch {url} by hand, put it at {place} and run the command again",
        ) from error


def _check_space(root: Path) -> None:
    existing = next(parent for parent in (root.absolute(), *root.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < _DISK:
        raise RunError(
            f"{root} has {free >> 30} GB free, VOC 2012 with SBD needs {_DISK >> 30} GB",
            "choose another place with --data",
        )


def _ids(path: Path) -> list[str]:
    lines = read_words(path, "delete its folder and run `densecl data get voc2012` again")
    return [line[0] for line in lines]
