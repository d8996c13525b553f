"""Cityscapes with fine annotations: 19 classes, 2,975 training and 500 validation images of 21 cities."""

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.maps import read_depth
from densecl.data.places import names_in
from densecl.errors import DataError, UnknownNameError

# id in the files -> class; the order is that of the train ids 0..18
CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
# The order in which PLOP lets the cities arrive; the last three are those of `val`.
CITIES = (
    "aachen", "bremen", "darmstadt", "erfurt", "hanover", "krefeld", "strasbourg", "tubingen", "weimar", "bochum",
    "cologne", "dusseldorf", "hamburg", "jena", "monchengladbach", "stuttgart", "ulm", "zurich",
    "frankfurt", "lindau", "munster",
)  # fmt: skip

_IDS = 34  # ids 0..33 occur in the files
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
BASELINE, FOCAL = 0.209313, 2262.52  # metres and pixels, of nearly all cities; used where a camera's file is not there


class Cityscapes(DenseDataset):
    """Cityscapes (Cordts et al., CVPR 2016): {leftImg8bit,gtFine}/{train,val}/CITY, masks of label ids.

    The 19 classes that are scored are the labels 1..19; every other id is void, so no pixel is background. `test` is
    `val`: the real test masks are not public. `trainval` is train, then val. Depth is made from disparity/ (of stereo
    matching, with holes) and, where it is there, camera/.
    """

    name = "cityscapes"
    class_names = tuple(CLASSES.values())
    has_background = False
    label_of = MappingProxyType(
        {**dict.fromkeys(range(_IDS), VOID), **{c: label for label, c in enumerate(CLASSES, start=1)}}
    )
    upright = None
    splits = ("train", "val", "test", "trainval")
    folders = ("cityscapes", "Cityscapes")
    inside = ("", "cityscapes")
    layout = ("leftImg8bit/train", "gtFine/train")
    truths = ("depth",)
    get_it = (
        "get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com (after "
        "registration), for depth also disparity_trainvaltest.zip and camera_trainvaltest.zip, extract them in {place}"
    )
    counts = MappingProxyType({"train": 2975, "val": 500, "test": 500})
    paper = "Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016"
    licence = "non-commercial, after registration"

    cities: tuple[str, ...] = ()  # only these; empty: all that are there

    def files(self, split: str) -> list[tuple[str, str, str]]:
        """Every image or mask of the cities; one without the other is refused."""
        parts = ("train", "val") if split == "trainval" else ("val",) if split == "test" else (split,)
        self.source = f"leftImg8bit + gtFine, {' + '.join(parts)}"
        self.source += f", {', '.join(self.cities)}" if self.cities else ""
        files, there = [], set()
        for part in parts:
            images, masks = self.root / "leftImg8bit" / part, self.root / "gtFine" / part
            cities = names_in(images) | names_in(masks)
            there |= cities
            for city in sorted(cities.intersection(self.cities or cities)):
                ids = {name.removesuffix(_IMAGE) for name in names_in(images / city) if name.endswith(_IMAGE)}
                ids |= {name.removesuffix(_MASK) for name in names_in(masks / city) if name.endswith(_MASK)}
                folders = images / city, masks / city
                files += [(i, str(folders[0] / (i + _IMAGE)), str(folders[1] / (i + _MASK))) for i in sorted(ids)]
        if absent := [city for city in self.cities if city not in there]:
            raise UnknownNameError(f"city of {split}", absent[0], there)
        return files

    def truth_files(self, truth: str) -> list[str]:
        """The disparity of each image."""
        return [self._beside(i, "disparity", ".png") for i in range(len(self))]

    def read_truth(self, i: int) -> np.ndarray:
        """Depth, baseline * focal length / disparity; a file has 0 where matching failed, else 256 disparity + 1."""
        stored = read_depth(self.mask_files[i], 1.0)
        camera, baseline, focal = Path(self._beside(i, "camera", ".json")), BASELINE, FOCAL
        if camera.is_file():
            try:
                content = json.loads(camera.read_text(encoding="utf-8"))
                baseline, focal = float(content["extrinsic"]["baseline"]), float(content["intrinsic"]["fx"])
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise DataError(
                    f"the camera {camera} has no baseline and fx", "get camera_trainvaltest.zip again"
                ) from error
        disparity = np.where(stored > 1, (stored - 1) / 256, np.float32(np.inf))
        return (baseline * focal / disparity).astype(np.float32)

    def _beside(self, i: int, kind: str, suffix: str) -> str:
        """The file of image `i` in another folder of the tree."""
        image = Path(self.image_files[i])
        return str(self.root / kind / image.parts[-3] / image.parts[-2] / f"{self.ids[i]}_{kind}{suffix}")

    def domains(self) -> dict[str, np.ndarray]:
        """The images of each city, in the order of `CITIES`; cities that are not there are left out.

        PLOP's 11-5, 11-1 and 1-1 are steps of 21 domains on `trainval`, of which it holds out a fifth for testing.
        """
        names = np.array([i.split("_", 1)[0] for i in self.ids])
        others = sorted(set(names.tolist()) - set(CITIES))
        return {city: images for city in (*CITIES, *others) if len(images := np.flatnonzero(names == city))}
