"""Taskonomy: rooms of 537 buildings with depth, normals and pseudo-labels of 16 classes."""

import csv
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.maps import read_depth, read_normals
from densecl.data.places import names_in
from densecl.errors import DataError

CLASSES = (
    "bottle", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "microwave", "oven", "toaster",
    "sink", "refrigerator", "book", "clock", "vase",
)  # fmt: skip
FOLDERS = {"depth": "depth_zbuffer", "normals": "normal"}
LABELS, UNKNOWN = "segment_semantic", 128.0 - 1 / 512  # metres of the largest value, which says that there is no depth


class Taskonomy(DenseDataset):
    """Taskonomy (Zamir et al., CVPR 2018): {rgb,depth_zbuffer,normal,segment_semantic}/BUILDING/VIEW_domain_X.png.

    That is the tree of Omnidata's tool, in which a folder `taskonomy` may stand before the buildings. Only the folders
    of tasks that are used must be there. The split is that of train_val_test_SUBSET.csv, which lists the buildings.

    Labels come from another network: 0 in the files is uncertain (void), 1 background. Depth has units of 1/512 m.
    Normals have y down in the files (Omnidata's maintainers in their issue 13), and up here.
    """

    name = "taskonomy"
    class_names = CLASSES
    label_of = MappingProxyType({0: VOID, **{c: c - 1 for c in range(1, 2 + len(CLASSES))}})
    upright = None
    splits = ("train", "val", "test")
    folders = ("taskonomy",)
    layout = ("rgb",)
    truths = ("depth", "normals")
    get_it = (
        "get it with omnidata-tools (`omnitools.download rgb depth_zbuffer normal segment_semantic --components "
        "taskonomy --subset tiny`), and train_val_test_tiny.csv of splits_taskonomy.zip from "
        "https://github.com/StanfordVL/taskonomy, into {place}"
    )
    paper = "Zamir et al., Taskonomy: Disentangling Task Transfer Learning, CVPR 2018"
    licence = "its own, for research"

    subset: Literal["tiny", "medium", "full", "fullplus"] = "tiny"
    every: int = 1  # each so many-th view alone: neighbours are much alike

    def files(self, split: str) -> list[tuple[str, str, str | None]]:
        """The views of the buildings of a split that are there."""
        self.source = f"{split} of {self.subset}" + (f", each {self.every}th view" if self.every > 1 else "")
        with_labels = (self.root / LABELS).is_dir()
        files = []
        for building in self._buildings(split):
            images = _views(self.root / "rgb", building)
            labels = _views(self.root / LABELS, building) if with_labels else {}
            for view in sorted(images)[:: max(1, self.every)]:
                mask = str(labels.get(view, self.root / LABELS / building / f"{view}_domain_{LABELS}.png"))
                files.append((f"{building}/{view}", str(images[view]), mask if with_labels else None))
        return files

    def truth_files(self, truth: str) -> list[str]:
        """A PNG each."""
        folder, views, files = self.root / FOLDERS[truth], {}, []
        for i in self.ids:
            building, view = i.split("/")
            if building not in views:
                views[building] = _views(folder, building)
            files.append(str(views[building].get(view, folder / building / f"{view}_domain_{FOLDERS[truth]}.png")))
        return files

    def read_truth(self, i: int) -> np.ndarray:
        """Depth or normals of view `i`."""
        if self.truth == "normals":
            return read_normals(self.mask_files[i]) * np.array([1, -1, 1], np.float32)[:, None, None]
        depth = read_depth(self.mask_files[i], 1 / 512)
        return np.where(depth < UNKNOWN, depth, np.float32(0))

    def _buildings(self, split: str) -> list[str]:
        """Those of the split that are there."""
        name = f"train_val_test_{self.subset}.csv"
        places = (self.root / name, self.root / "splits_taskonomy" / name)
        place = next((place for place in places if place.is_file()), None)
        if place is None:
            raise DataError(f"the list {places[0]} is missing", self.hint())
        try:
            with place.open(newline="", encoding="utf-8-sig") as file:
                listed = [row["id"] for row in csv.DictReader(file) if row[split].strip() in ("1", "True", "true")]
        except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"the list {place} has not the columns id, train, val, test", "get it again") from error
        there = names_in(_below(self.root / "rgb"))
        return [building for building in sorted(listed) if building in there]


def _below(folder: Path) -> Path:
    """The folder that holds the buildings."""
    return folder / "taskonomy" if (folder / "taskonomy").is_dir() else folder


def _views(folder: Path, building: str) -> dict[str, Path]:
    """Files of a building by point and view: how the domain is spelt in their names differs between releases."""
    place = _below(folder) / building
    return {name.partition("_domain_")[0]: place / name for name in names_in(place) if name.endswith(".png")}
