"""Pascal VOC 2012 with SBD's masks: 20 classes, 10,582 training and 1,449 validation images."""

import os
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from densecl.data.dataset import DenseDataset, Progress
from densecl.data.places import by_stem, data_folder, read_words

LISTS = Path("ImageSets", "Segmentation")
MASKS, AUGMENTED, SALIENCY = "SegmentationClass", "SegmentationClassAug", "saliency_map"
_SUFFIXES = (".png", ".jpeg", ".jpg")


class VOC(DenseDataset):
    """Pascal VOC 2012 (Everingham et al., IJCV 2015), with SBD's masks (Hariharan et al., ICCV 2011) when there.

    `train` is `train_aug.txt` with `SegmentationClassAug` when both exist (10,582 images), else `train.txt` with
    `SegmentationClass` (1,464). `test` is `val` (1,449), as in the field, whose test masks are not public; a tree
    with a `test.txt` whose masks are there is read by it. Images are JPEGs, or PNGs of the same name. Other data in
    this layout needs a subclass with its `class_names`.

    `voc(lists=(sbd_train, seg11valid))` names other lists, of training and of all other images, such as those of the
    papers on VOC 2011.

    A folder `saliency_map` of grey PNGs named like the images gives methods the maps of what stands out (`ssul`).
    """

    name = "voc"
    aliases = ("voc2012",)
    class_names = (
        "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip
    upright = None
    splits = ("train", "val", "test", "trainval")
    folders = ("voc2012", "voc", "VOCdevkit", "VOC2012")
    inside = ("VOCdevkit/VOC2012", "VOC2012", "")
    layout = ("JPEGImages", MASKS, str(LISTS))
    get_it = "get it with `densecl data get voc2012`, put it at {place}/VOCdevkit/VOC2012"
    counts = MappingProxyType({"train": 10582, "val": 1449, "test": 1449})
    paper = "Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2015; SBD: Hariharan et al., 2011"
    licence = "images under the terms of use of Flickr"

    lists: tuple[str, str] | None = None  # names in ImageSets/Segmentation instead of the usual ones

    @classmethod
    def get(cls, root: Path | None = None, progress: Progress | None = None) -> Path:
        """Download VOC and SBD, and merge them; what is there already is not fetched again."""
        from densecl.data.download import get_voc

        return get_voc(data_folder() / cls.folders[0] if root is None else Path(root).expanduser(), progress)

    def files(self, split: str) -> list[tuple[str, str, str]]:
        """Read the split's list: an id a line, or `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`."""
        list_name, masks = self._choose(split)
        self.source = f"{list_name}.txt + {masks}"
        images = by_stem(self.root / "JPEGImages", *_SUFFIXES)
        labelled = by_stem(self.root / masks, ".png")
        base, mask_base = f"{self.root / 'JPEGImages'}{os.sep}", f"{self.root / masks}{os.sep}"
        return [
            (i, base + images.get(i, f"{i}.jpg"), mask_base + labelled.get(i, f"{i}.png"))
            for i in self._read_ids(list_name)
        ]

    @cached_property
    def _salient(self) -> bool:
        return (self.root / SALIENCY).is_dir()

    def extra_files(self, i: int) -> dict[str, str]:
        """The saliency map, where the tree has them."""
        return {"saliency": f"{self.root / SALIENCY}{os.sep}{self.ids[i]}.png"} if self._salient else {}

    def _choose(self, split: str) -> tuple[str, str]:
        """The list and the folder of masks of a split."""
        augmented = (self.root / AUGMENTED).is_dir()
        # some trees hold the merged masks alone: they contain those of the official split too
        plain = AUGMENTED if augmented and not (self.root / MASKS).is_dir() else MASKS
        if self.lists:
            return self.lists[split != "train"], AUGMENTED if augmented else MASKS
        if split == "train" and augmented and (self.root / LISTS / "train_aug.txt").is_file():
            return "train_aug", AUGMENTED
        if split == "test":
            # VOC's own test archive brings a test.txt without masks: that is not a test split one can measure on
            listed = (self.root / LISTS / "test.txt").is_file()
            masked = listed and self._read_ids("test")[0] in by_stem(self.root / plain, ".png")
            return "test" if masked else "val", plain
        return split, plain

    def _read_ids(self, list_name: str) -> list[str]:
        words = [line[0] for line in read_words(self.root / LISTS / f"{list_name}.txt", self.hint())]
        return [PurePosixPath(word).stem if "/" in word or word.lower().endswith(_SUFFIXES) else word for word in words]
