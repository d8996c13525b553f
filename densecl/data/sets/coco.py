"""COCO 2017 as semantic segmentation: masks of 80 classes, painted from the instance annotations.

Rule of overlaps: crowd regions are painted first, as void; then the instances from the largest to the smallest area (in
pixels; of two equal ones the lower id first), so that a smaller object lies on top of a larger one, and an instance on
top of a crowd.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from filelock import FileLock

from densecl.data.class_index import for_each
from densecl.data.dataset import VOID, DenseDataset, Progress
from densecl.data.decode import write_mask
from densecl.data.places import cache_folder
from densecl.errors import DataError
from densecl.files import write_error, write_text

CATEGORIES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck",
    9: "boat", 10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench",
    16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra",
    25: "giraffe", 27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee",
    35: "skis", 36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove",
    41: "skateboard", 42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork",
    49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli",
    57: "carrot", 58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant",
    65: "bed", 67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip
LABELS = {category: label for label, category in enumerate(CATEGORIES, start=1)}

_LIST = "images.txt"  # written last: without it no reader looks at a half-painted folder
_VERSION = 1  # of the rule of overlaps


class COCO(DenseDataset):
    """COCO 2017 (Lin et al., ECCV 2014): {train2017,val2017} and annotations/instances_*.json.

    Masks are painted into the cache when a split is opened for the first time (minutes for train2017; `densecl data
    make coco` does it with progress) and read from there. What no instance covers is background; crowds are void.
    Labels 1..80 follow the category ids. `test` is `val2017`: the real test annotations are not public.
    """

    name = "coco"
    aliases = ("coco2017",)
    class_names = tuple(CATEGORIES.values())
    upright = False
    folders = ("coco", "coco2017", "COCO")
    inside = ("", "coco")
    layout = ("annotations/instances_train2017.json", "annotations/instances_val2017.json")
    get_it = (
        "get train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download, "
        "extract them in {place}"
    )
    counts = MappingProxyType({"train": 118287, "val": 5000, "test": 5000})
    paper = "Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014"
    licence = "annotations CC BY 4.0, images under the terms of use of Flickr"
    made = "masks"

    @classmethod
    def make(cls, root: Path | None = None, progress: Progress | None = None) -> Path:
        """Paint the masks of all parts that are there; the folder of the masks' folders."""
        folder = cls.locate(root)
        parts = sorted(path.stem[10:] for path in folder.glob("annotations/instances_*2017.json"))
        for part in parts:
            paint(folder, part, progress)
        return cache_folder() / "coco"

    def files(self, split: str) -> list[tuple[str, str, str]]:
        """Read the list of images, painting the masks if that was not done yet."""
        part = "train2017" if split == "train" else "val2017"
        if not (self.root / part).is_dir():  # told before minutes of painting
            raise DataError(f"the folder {self.root / part} is missing", self.hint())
        self.source = f"{part} + instances_{part}.json"
        masks = paint(self.root, part)
        names = (masks / _LIST).read_text(encoding="utf-8").split("\n")[:-1]
        return [(i := Path(name).stem, str(self.root / part / name), str(masks / f"{i}.png")) for name in names]


def paint(folder: Path, part: str, progress: Progress | None = None) -> Path:
    """Paint the masks of `train2017` or `val2017` into a folder of the cache, another one for other annotations.

    Raises:
        DataError: the annotations are missing or broken. RunError: no space.
    """
    annotations = folder / "annotations" / f"instances_{part}.json"
    try:
        state = annotations.stat()
    except OSError as error:
        raise DataError(f"{annotations} is missing", COCO.hint()) from error
    content = f"{_VERSION}\n{annotations.resolve()}\n{state.st_size} {state.st_mtime_ns}"
    masks = cache_folder() / "coco" / f"{part}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    if (masks / _LIST).is_file():
        return masks
    try:
        masks.mkdir(parents=True, exist_ok=True)
        with FileLock(masks / ".lock"):
            if not (masks / _LIST).is_file():
                _paint(annotations, masks, progress)
    except OSError as error:
        raise write_error(masks, error) from error
    return masks


def semantic_mask(annotations: Sequence[Mapping[str, Any]], height: int, width: int) -> np.ndarray:
    """Paint the mask of one image by the rule of overlaps: (height, width) uint8, 0 background, 1..80, 255 void.

    `annotations` are those of its instances, as in the file: `id`, `category_id`, `iscrowd` and `segmentation`
    (polygons, or run lengths, compressed or not).
    """
    from pycocotools import mask as run_lengths

    parts = []
    for annotation in annotations:
        try:
            label = VOID if annotation.get("iscrowd") else LABELS[annotation["category_id"]]
            region = _run_lengths(annotation["segmentation"], height, width)
            if region is not None:
                area = int(run_lengths.area(region))
                parts.append((label != VOID, -area, annotation["id"], label, region))
        except Exception as error:  # pycocotools raises many kinds for a broken region
            name = annotation.get("id")
            raise DataError(f"annotation {name} cannot be used: {type(error).__name__}: {error}") from error
    mask = np.zeros((height, width), dtype=np.uint8)
    for *_, label, region in sorted(parts, key=lambda p: p[:3]):
        mask[run_lengths.decode(region).view(bool)] = label
    return mask


def _run_lengths(segmentation: Any, height: int, width: int) -> Any:
    """One compressed region; None for one without extent."""
    from pycocotools import mask as run_lengths

    if isinstance(segmentation, Mapping):
        if isinstance(segmentation["counts"], list):
            return run_lengths.frPyObjects(dict(segmentation), height, width)  # type: ignore[arg-type]
        return segmentation
    # pycocotools takes a list of four numbers for a box: two points are no polygon
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    return run_lengths.merge(run_lengths.frPyObjects(polygons, height, width)) if polygons else None


def _paint(path: Path, masks: Path, progress: Progress | None) -> None:
    """Write the mask of every image of an annotation file, then the list."""
    try:
        content = json.loads(path.read_bytes())
        images = sorted(content["images"], key=lambda image: image["file_name"])
        sizes = [(image["id"], int(image["height"]), int(image["width"])) for image in images]
        instances: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            instances[annotation["image_id"]].append(annotation)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is no COCO file of instances ({reason})", "fetch it again") from error
    if not images:
        raise DataError(f"{path} names no image", "fetch it again")

    def write(i: int) -> None:
        target = masks / f"{Path(images[i]['file_name']).stem}.png"
        if target.is_file():  # of an interrupted call
            return
        number, height, width = sizes[i]
        unfinished = target.with_suffix(".part")
        try:
            write_mask(semantic_mask(instances.get(number, ()), height, width), unfinished)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        unfinished.replace(target)

    for_each(write, len(images), progress=progress)
    write_text(masks / _LIST, "".join(f"{image['file_name']}\n" for image in images))
