"""Getting the data: downloads through torchvision, SBD's masks merged into VOC, the embedded set drawn.

Every stage that is finished is recognised and skipped, so the same command goes on after an interruption.
"""

import errno
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from densecl.data import DRAWN, canonical, coco, drawn_set, locate, voc
from densecl.data.class_index import for_each
from densecl.data.indexed_png import write_mask
from densecl.data.places import data_folder, names_in
from densecl.errors import DataError, RunError
from densecl.files import write_error, write_text

Progress = Callable[[int, int], None]

TRAIN_AUG = 10582  # SBD train and val, VOC train, without VOC val
_DISK = 9 << 30  # VOC: archive 2 GB, tree 2 GB; SBD: archive 1.4 GB, tree 1.8 GB; the rest is room
_LISTS = Path("ImageSets", "Segmentation")


def get(name: str, root: Path | None = None, progress: Progress | None = None) -> Path:
    """Fetch a data set.

    Args:
        name: `voc2012`, one that is drawn, or another one that is there already.
        root: where to; default the data set's place in the user's data folder.
        progress: called with (done, total) while masks are merged.

    Returns:
        The data set's own folder.

    Raises:
        DataError: a file cannot be fetched; the message names it and where to put it by hand.
        RunError: no space, or the folder cannot be written.
    """
    name = canonical(name)
    if name in DRAWN:
        return make(name, root)
    if name != "voc":  # behind a registration, or too large to fetch unasked: the message says where it is
        return locate(name, root)
    return _get_voc(data_folder() / voc.FOLDERS[0] if root is None else Path(root).expanduser(), progress)


def make(name: str, root: Path | None = None, progress: Progress | None = None) -> Path:
    """Draw an embedded data set (`shapes`, `figures`, `tints`), or paint the masks of `coco`, unless they are there.

    Args:
        name: one of `densecl.data.DRAWN`, or `coco`.
        root: of a drawn one: a folder to draw it below, default the cache; `coco`: where its files are.
        progress: called with (done, total) while masks are painted.

    Returns:
        The folder of the drawn files.

    Raises:
        DataError: another data set.
        RunError: it cannot be written.
    """
    if canonical(name) == "coco":
        parts = sorted((locate(name, root) / "annotations").glob("instances_*2017.json"))
        folders = [coco.paint(file.parent.parent, file.stem.removeprefix("instances_"), progress) for file in parts]
        return folders[0].parent
    if canonical(name) not in DRAWN:
        raise DataError(f"{name} is not drawn", f"get it with `densecl data get {name}`")
    drawn = drawn_set(name)
    return drawn.write(None if root is None else drawn.folder(Path(root).expanduser()))


def merge_sbd(folder: Path, sbd: Path, progress: Progress | None = None) -> int:
    """Write `SegmentationClassAug` and `train_aug.txt`: SBD's masks for VOC's images, VOC's own where it has them.

    The images are SBD's train and val and VOC's train, without VOC's val, so that no image is in training and in
    evaluation.

    Args:
        folder: the VOC2012 folder, with `SegmentationClass` and its lists.
        sbd: the folder with SBD's `cls` (a .mat file an image), `train.txt` and `val.txt`.
        progress: called with (done, total).

    Returns:
        The number of images.

    Raises:
        DataError: a list or a mask is missing or broken; the message names the file.
        RunError: it cannot be written.
    """
    own = set(_ids(folder / _LISTS / "train.txt"))
    ids = sorted(
        (own | set(_ids(sbd / "train.txt")) | set(_ids(sbd / "val.txt"))) - set(_ids(folder / _LISTS / "val.txt"))
    )
    masks = folder / "SegmentationClassAug"

    def convert(i: int) -> None:
        target = masks / f"{ids[i]}.png"
        if target.exists():
            return
        part = masks / f".{ids[i]}.part"
        if ids[i] in own:
            shutil.copyfile(folder / "SegmentationClass" / f"{ids[i]}.png", part)
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
    write_text(folder / _LISTS / "train_aug.txt", "".join(f"{i}\n" for i in ids))
    return len(ids)


def read_sbd_mask(path: Path) -> np.ndarray:
    """The mask of an SBD .mat file, `GTcls.Segmentation`.

    Returns:
        (H, W) uint8, 0..20.

    Raises:
        DataError: no such file, or not one of SBD's.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"SBD mask {path} is missing", "delete the folder sbd and run the command again")
    try:
        mask = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # scipy raises many kinds for a broken file
        raise DataError(f"SBD mask {path} cannot be read: {error}", "delete it and run the command again") from error
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.max(initial=0) > len(voc.CLASS_NAMES):
        raise DataError(f"SBD mask {path} is no (height, width) array of class ids 0-20", "fetch SBD again")
    return mask


def _get_voc(root: Path, progress: Progress | None) -> Path:
    """VOC 2012 and SBD below `root`, merged."""
    from torchvision.datasets import SBDataset, VOCSegmentation
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    folder, sbd = root / "VOCdevkit" / "VOC2012", root / "sbd"
    if _complete(folder, ["train", "val"], folder / "SegmentationClass", ".png") and (
        _complete(folder, ["train_aug"], folder / "SegmentationClassAug", ".png")
    ):
        return folder
    _check_space(root)
    if not _complete(folder, ["train", "val"], folder / "SegmentationClass", ".png"):
        archive = DATASET_YEAR_DICT["2012"]
        place = root / archive["filename"]
        _fetch(lambda: VOCSegmentation(str(root), year="2012", image_set="val", download=True), archive["url"], place)
    if not _complete(sbd, ["train", "val"], sbd / "cls", ".mat"):
        for rest in (
            "cls",
            "img",
            "inst",
            "benchmark_RELEASE",
        ):  # of an interrupted extraction, which torchvision trips over
            shutil.rmtree(sbd / rest, ignore_errors=True)
        for rest in ("train.txt", "val.txt"):
            (sbd / rest).unlink(missing_ok=True)
        place = sbd / SBDataset.filename
        _fetch(lambda: SBDataset(str(sbd), image_set="train", download=True), SBDataset.url, place)
    count = merge_sbd(folder, sbd, progress)
    if count != TRAIN_AUG:
        raise DataError(
            f"{folder / _LISTS / 'train_aug.txt'} has {count} images, not {TRAIN_AUG}", f"delete {root} and start over"
        )
    return folder


def _complete(lists: Path, names: Iterable[str], folder: Path, ending: str) -> bool:
    """Whether the lists exist and every file they name is in `folder`."""
    files = [
        path for name in names for path in (lists / _LISTS / f"{name}.txt", lists / f"{name}.txt") if path.is_file()
    ]
    if len(files) != len(list(names)) or not folder.is_dir():
        return False
    there = names_in(folder)
    return all(f"{i}{ending}" in there for file in files for i in _ids(file))


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
    try:
        return path.read_text(encoding="utf-8").split()
    except FileNotFoundError as error:
        raise DataError(
            f"the list {path} is missing", "delete its folder and run `densecl data get voc2012` again"
        ) from error
