"""COCO 2017 as semantic segmentation: masks of 80 classes, painted from the instance annotations.

Rule of overlaps: crowd regions are painted first, as void; then the instances from the largest to the smallest area (in
pixels; of two equal ones the lower id first), so that a smaller object lies on top of a larger one, and an instance on
top of a crowd.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np

from densecl.data.class_index import for_each
from densecl.data.dataset import VOID, DenseDataset, Progress
from densecl.data.decode import check_pixels, write_mask
from densecl.data.places import cache_folder
from densecl.errors import DataError
from densecl.files import locked, write_error, write_text

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
        pairs = zip(names, _mask_names(names), strict=True)
        return [(i, str(self.root / part / name), str(masks / f"{i}.png")) for name, i in pairs]


def paint(folder: Path, part: str, progress: Progress | None = None) -> Path:
    """Paint the masks of `train2017` or `val2017` into a folder of the cache, another one for other annotations."""
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
        with locked(masks / ".lock", lambda: None):
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
        category = annotation.get("category_id")
        label = VOID if annotation.get("iscrowd") else LABELS.get(category) if isinstance(category, int) else None
        if label is None:
            fault = f"annotation {annotation['id']} has the category_id {category!r}, which is none of COCO's 80"
            raise DataError(fault, "give it one of the ids 1 to 90 of COCO, or leave it out")
        region = _region(annotation, height, width)
        if region is not None:
            parts.append((label != VOID, -int(run_lengths.area(region)), annotation["id"], label, region))
    mask = np.zeros((height, width), dtype=np.uint8)
    for *_, label, region in sorted(parts, key=lambda p: p[:3]):
        mask[run_lengths.decode(region).view(bool)] = label
    return mask


def _region(annotation: Mapping[str, Any], height: int, width: int) -> Any:
    """The segmentation of an annotation as compressed run lengths; None for one without extent."""
    from pycocotools import mask as run_lengths

    try:
        region = annotation["segmentation"]
        if isinstance(region, Mapping):
            size = tuple(region["size"])
            if isinstance(counts := region["counts"], list):
                if size == (height, width) and (min(counts) < 0 or sum(counts) != height * width):
                    raise ValueError("other run lengths than pixels")  # pycocotools would write past the mask
                region = run_lengths.frPyObjects(dict(region), *size)  # type: ignore[arg-type]
            if size == (height, width):
                run_lengths.decode(region)  # type: ignore[arg-type]
        else:
            # pycocotools takes a list of four numbers for a box: two points are no polygon
            polygons = [polygon for polygon in region if len(polygon) >= 6]
            reach = 2 * max(height, width)  # pycocotools takes memory for each pixel that an edge passes
            if any(not -reach <= place <= reach for polygon in polygons for place in polygon):
                raise ValueError("a polygon far outside of its image")
            region = run_lengths.merge(run_lengths.frPyObjects(polygons, height, width)) if polygons else None
            size = height, width
    except Exception as error:  # pycocotools raises many kinds for a broken region
        fault = f"annotation {annotation['id']} has a segmentation that cannot be read"
        raise DataError(fault, "it is polygons or run lengths; fetch the file again") from error
    if size != (height, width):
        fault = f"annotation {annotation['id']} has run lengths for {size[1]}x{size[0]} pixels"
        raise DataError(f"{fault}, its image has {width}x{height}", "the file is of other images, or damaged")
    return region


def _paint(path: Path, masks: Path, progress: Progress | None) -> None:
    """Write the mask of every image of an annotation file, then the list."""
    images, instances = _read(path)
    targets = [masks / f"{name}.png" for name in _mask_names([image["file_name"] for image in images])]

    def write(i: int) -> None:
        target, image = targets[i], images[i]
        if target.is_file():  # of an interrupted call
            return
        unfinished = target.with_suffix(".part")
        height, width = int(image["height"]), int(image["width"])
        check_pixels("image", image["file_name"], height, width)
        try:
            mask = semantic_mask(instances[image["id"]], height, width)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mask(mask, unfinished)
        unfinished.replace(target)

    for_each(write, len(images), progress=progress)
    write_text(masks / _LIST, "".join(f"{image['file_name']}\n" for image in images))


def _mask_names(names: Sequence[str]) -> list[str]:
    """The stem of each image, or its whole name where others have the same stem."""
    stems = Counter(Path(name).stem for name in names)
    return [name if stems[Path(name).stem] > 1 else Path(name).stem for name in names]


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[Any, list[dict[str, Any]]]]:
    """The images of an annotation file by name, and the annotations of each by its id; all fit each other."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON", "fetch it again") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path} has no list '{key}'", "it is no COCO file of instances; fetch it again")
    if not content["images"]:
        raise DataError(f"{path} names no image", "fetch it again")
    instances: dict[Any, list[dict[str, Any]]] = {}
    names, numbers = set(), set()
    for image in content["images"]:
        fault = ""
        if not _is_image(image):
            fault = f"{str(image)[:60]} is an image without id, file_name, height or width"
        elif (place := PurePosixPath(image["file_name"])).is_absolute() or ".." in place.parts or "\n" in place.name:
            fault = f"the image {image['file_name']!r} is no path below {path.stem[10:]}"
        elif image["id"] in instances:
            fault = f"the image id {image['id']} is there twice"
        elif image["file_name"] in names:
            fault = f"the image {image['file_name']} is there twice"
        if fault:
            raise DataError(f"{path}: {fault}", "mend it, or fetch it again")
        instances[image["id"]] = []
        names.add(image["file_name"])
    for annotation in content["annotations"]:
        number, image = (annotation.get(key) if isinstance(annotation, dict) else None for key in ("id", "image_id"))
        if not isinstance(number, int):
            raise DataError(f"{path} has an annotation without a number as id", "mend it, or fetch it again")
        if not isinstance(image, int | str) or image not in instances:
            fault = f"annotation {number} is of image {image!r}, which is not among its images"
            raise DataError(f"{path}: {fault}", "an image_id is the id of an image, as it stands there")
        if number in numbers:
            raise DataError(f"{path}: annotation {number} is there twice", "mend it, or fetch it again")
        numbers.add(number)
        instances[image].append(annotation)
    return sorted(content["images"], key=lambda image: image["file_name"]), instances


def _is_image(image: Any) -> bool:
    """True if an image of a file has an id, a name and a size."""
    if not isinstance(image, dict) or type(image.get("id")) not in (int, str):
        return False
    sides = [image.get("height"), image.get("width")]
    whole = all(isinstance(side, int | float) and side > 0 and float(side).is_integer() for side in sides)
    return whole and isinstance(image.get("file_name"), str) and image["file_name"] != ""
