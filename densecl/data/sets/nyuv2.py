"""NYU Depth V2: 1,449 indoor photographs with labels of 13 or 40 classes, depth and, in folders, normals."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.maps import read_depth, read_matrix, read_normals
from densecl.data.places import by_stem, read_words
from densecl.errors import DataError

NAMES_13 = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
)  # fmt: skip
NAMES_40 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
# the class of 13 (Couprie et al., 2013) of each class of 40 (Gupta et al., CVPR 2013), from 0 on
TO_13 = (
    0, 12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5, 7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7,
    7, 7, 7, 6, 7,
)  # fmt: skip
MAT, SPLITS, CLASSES = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"


class NYUv2(DenseDataset):
    """NYU Depth V2 (Silberman et al., ECCV 2012), official split; no pixel is background, label 0 in files is void.

    Either folders, {train,test}/{rgb,depth,labels_13,labels_40,normals}, of files of one name: a JPEG or PNG; PNGs
    of 16 bits, millimetres; PNGs of 8 bits, ids, 0 void; RGB = (n + 1) / 2 * 255 with x to the right, y up, z to
    the viewer. The lists train.txt and test.txt beside them may be absent. Or the official .mat with splits.mat
    and, from its 894 classes to 40, classMapping40.mat, read by h5py; normals are then those of
    {train,test}/normals/0001.png beside it.
    """

    name = "nyuv2"
    aliases = ("nyu", "nyudv2")
    class_names = NAMES_13
    has_background = False
    upright = None
    splits = ("train", "test")
    folders = ("nyuv2", "nyu", "NYUv2")
    layout = (MAT, "train/rgb")
    truths = ("depth", "normals")
    get_it = (
        f"get {MAT} and {SPLITS} from https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html, {CLASSES} from "
        "https://github.com/s-gupta/rcnn-depth, put all in {place}; it has no normals: put those in "
        "train/normals/0001.png, ..."
    )
    counts = MappingProxyType({"train": 795, "test": 654})
    paper = "Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012"
    licence = "for research"

    classes: Literal[13, 40] = 13

    def files(self, split: str) -> list[tuple[str, str, str]]:
        """The images of the list of a split, or of its folder."""
        self.class_names = NAMES_13 if self.classes == 13 else NAMES_40
        self.label_of = {0: VOID, **{c: c for c in range(1, self.classes + 1)}}
        if (self.root / MAT).is_file():
            self.source = f"{MAT}, {split}"
            numbers = read_matrix(self.root / SPLITS, f"{split}Ndxs", self.hint()).ravel().astype(int)
            mapped = read_matrix(self.root / CLASSES, "mapClass", self.hint()).ravel().astype(np.uint8)
            table = np.concatenate([[0], mapped]).astype(np.uint8)  # 0 is void in all three
            self._classes = np.array(TO_13, np.uint8)[table] if self.classes == 13 else table
            return [(f"{number:04d}", str(self.root / MAT), str(self.root / MAT)) for number in sorted(numbers)]
        folder, listed = self.root / split, self.root / f"{split}.txt"
        images = by_stem(folder / "rgb", ".jpg", ".png")
        self.source = listed.name if listed.is_file() else f"{split}/rgb"
        ids = [words[0] for words in read_words(listed, self.hint())] if listed.is_file() else sorted(images)
        labels = folder / f"labels_{self.classes}"
        return [(i, str(folder / "rgb" / images.get(i, f"{i}.jpg")), str(labels / f"{i}.png")) for i in ids]

    def truth_files(self, truth: str) -> list[str]:
        """A PNG each, or the .mat."""
        if truth == "depth" and self._from_mat:
            return list(self.image_files)
        return [str(self.root / self.split / truth / f"{i}.png") for i in self.ids]

    def read_truth(self, i: int) -> np.ndarray:
        """Depth or normals of image `i`."""
        if self.truth == "normals":
            return read_normals(self.mask_files[i])
        if not self._from_mat:
            return read_depth(self.mask_files[i])
        return self._read(i, "depths", (640, 480)).T.astype(np.float32)[None].copy()

    def read_image(self, i: int) -> np.ndarray:
        """Decode image `i`."""
        if not self._from_mat:
            return super().read_image(i)
        return self._read(i, "images", (3, 640, 480)).transpose(2, 1, 0).astype(np.uint8).copy()

    def image_size(self, i: int) -> tuple[int, int]:
        """(height, width); all images of the .mat have one size."""
        return (480, 640) if self._from_mat else super().image_size(i)

    def read_ids(self, i: int) -> np.ndarray:
        """Decode the labels of image `i`, of 13 or 40 classes."""
        if not self._from_mat:
            return super().read_ids(i)
        labels = self._read(i, "labels", (640, 480)).T.astype(int)
        if labels.max(initial=0) >= len(self._classes):
            raise DataError(f"{MAT} has the class {labels.max()} in image {self.ids[i]}", f"get {MAT} again")
        return np.ascontiguousarray(self._classes[labels])

    @property
    def _from_mat(self) -> bool:
        return self.image_files[0].endswith(MAT)

    def _read(self, i: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array of image `i` of the .mat: MATLAB's axes are in the opposite order."""
        place = self.image_files[i]
        values = _with_h5py(Path(place), lambda file: file[key][int(self.ids[i]) - 1])
        if values.shape != shape:
            raise DataError(
                f"{key} of image {self.ids[i]} in {place} are {values.shape}, not {shape}", f"get {MAT} again"
            )
        return values


def _with_h5py(path: Path, read: Callable[[Any], np.ndarray]) -> np.ndarray:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(f"reading {path} needs h5py", "pip install h5py (densecl[nyuv2])") from error
    try:
        with h5py.File(path, "r") as file:
            return read(file)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path} cannot be read: {error}", "get it again") from error
