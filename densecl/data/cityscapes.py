"""Cityscapes with fine annotations: 19 classes, 2,975 training and 500 validation images of 21 cities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.places import check_files, data_folder, names_in
from densecl.errors import DataError, UnknownNameError

# id in the files -> class; the order is that of the train ids 0..18
CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
CLASS_NAMES = tuple(CLASSES.values())
# The order in which PLOP lets the cities arrive; the last three are those of `val`.
CITIES = (
    "aachen", "bremen", "darmstadt", "erfurt", "hanover", "krefeld", "strasbourg", "tubingen", "weimar", "bochum",
    "cologne", "dusseldorf", "hamburg", "jena", "monchengladbach", "stuttgart", "ulm", "zurich",
    "frankfurt", "lindau", "munster",
)  # fmt: skip
FOLDERS = ("cityscapes", "Cityscapes")
SPLITS = ("train", "val", "test", "trainval")

_IDS = 34  # ids 0..33 occur in the files
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


def find(root: Path) -> Path | None:
    """The folder with leftImg8bit and gtFine in or at `root`; None when there is none."""
    for folder in (root, root / "cityscapes"):
        if (folder / "gtFine" / "train").is_dir() or (folder / "leftImg8bit" / "train").is_dir():
            return folder
    return None


def hint() -> str:
    """How to get Cityscapes, and where to put it."""
    place = data_folder() / FOLDERS[0]
    return (
        "get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com (after "
        f"registration), extract both in {place}, or name their folder with --data or DENSECL_DATA"
    )


class Cityscapes(DenseDataset):
    """Cityscapes (Cordts et al., CVPR 2016): {leftImg8bit,gtFine}/{train,val}/CITY, masks of label ids.

    The 19 classes that are scored are the labels 1..19; every other id is void, so no pixel is background. `test` is
    `val`: the real test masks are not public. `trainval` is train, then val.
    """

    def __init__(self, root: Path, split: str, cities: Sequence[str] | None = None):
        """Compare the folders of the cities with each other.

        Args:
            root: the folder with leftImg8bit and gtFine.
            split: train, val, test or trainval.
            cities: only these; default all that are there.

        Raises:
            DataError: a folder is missing, a city is not in the split, an image has no mask or a mask no image.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        folder = find(Path(root).expanduser())
        if folder is None:
            raise DataError(f"no Cityscapes layout (leftImg8bit/train, gtFine/train) in {root}", hint())
        parts = ("train", "val") if split == "trainval" else ("val",) if split == "test" else (split,)
        ids, images, masks, found = [], [], [], set()
        for part in parts:
            for city in _cities(folder, part):
                found.add(city)
                if cities is None or city in cities:
                    for i in _ids(folder, part, city):
                        ids.append(i)
                        images.append(str(folder / "leftImg8bit" / part / city / (i + _IMAGE)))
                        masks.append(str(folder / "gtFine" / part / city / (i + _MASK)))
        for city in cities or ():
            if city not in found:
                raise UnknownNameError(f"city of {split}", city, found)
        if not ids:
            raise DataError(f"{folder / 'leftImg8bit' / parts[0]} holds no *{_IMAGE}", hint())
        super().__init__(
            "cityscapes",
            folder,
            split,
            ids=ids,
            images=images,
            masks=masks,
            class_names=CLASS_NAMES,
            has_background=False,
            labels={**dict.fromkeys(range(_IDS), VOID), **{c: label for label, c in enumerate(CLASSES, start=1)}},
            source=f"leftImg8bit + gtFine, {' + '.join(parts)}" + (f", {', '.join(cities)}" if cities else ""),
        )


def by_city(dataset: DenseDataset) -> dict[str, np.ndarray]:
    """Sorted indices of the images of each city, in the order of CITIES; cities that are not there are left out."""
    names = np.array([i.split("_", 1)[0] for i in dataset.ids])
    others = sorted(set(names.tolist()) - set(CITIES))
    return {city: found for city in (*CITIES, *others) if len(found := np.flatnonzero(names == city))}


def domains(dataset: DenseDataset, steps: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Sorted indices of the images of each step of a domain-incremental stream.

    PLOP's 11-5, 11-1 and 1-1 are `protocol.steps(name, 21)` on `trainval`, of which it holds out a fifth for testing.

    Args:
        dataset: the reader.
        steps: numbers of the cities of each step, 1 for the first city of `by_city`.
    """
    images = list(by_city(dataset).values())
    return [np.sort(np.concatenate([images[number - 1] for number in step])) for step in steps]


def _cities(folder: Path, part: str) -> list[str]:
    """The cities of a part, in order of name."""
    for kind in ("leftImg8bit", "gtFine"):
        if not (folder / kind / part).is_dir():
            raise DataError(f"the folder {folder / kind / part} is missing", hint())
    both = (folder / "leftImg8bit" / part, folder / "gtFine" / part)
    return sorted({entry.name for place in both for entry in place.iterdir() if entry.is_dir()})


def _ids(folder: Path, part: str, city: str) -> list[str]:
    """The images of a city, each of which has a mask."""
    there = {}
    for kind, ending in (("leftImg8bit", _IMAGE), ("gtFine", _MASK)):
        place = folder / kind / part / city
        names = names_in(place) if place.is_dir() else set()
        there[kind] = {name for name in names if name.endswith(ending)}
    ids = sorted(
        {name.removesuffix(_IMAGE) for name in there["leftImg8bit"]} | {n.removesuffix(_MASK) for n in there["gtFine"]}
    )
    masks, images = folder / "gtFine" / part / city, folder / "leftImg8bit" / part / city
    check_files(f"masks of {city}", masks, [i + _MASK for i in ids], there["gtFine"], hint())
    check_files(f"images of {city}", images, [i + _IMAGE for i in ids], there["leftImg8bit"], hint())
    return ids
