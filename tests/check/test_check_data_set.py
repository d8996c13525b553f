"""`densecl check` of a data set: each fault is one finding in words."""

from pathlib import Path

import numpy as np
import pytest

from data_trees import noise_image, palette_mask, voc_tree
from densecl.check.data_set import check_data_set
from densecl.check.dispatch import is_data_set
from densecl.cli import main
from densecl.data import data_set, open_dataset

HEAD = """
import random
import numpy as np
from densecl.data.dataset import DenseDataset


class Mine(DenseDataset):
    class_names = ("a", "b")
    splits = ("train", "test")
    ending: str = ".png"

    def files(self, split):
        for image in sorted((self.root / split).glob("*" + self.ending)):
            yield image.stem, image, self.root / "masks" / image.name

"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Writes the class with more in its body, or other text, and gives the findings."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for k in range(4):
            noise_image(tmp_path / "data" / split / f"{split}{k}.png", (6, 8), seed=k)
            palette_mask(tmp_path / "data" / "masks" / f"{split}{k}.png", np.full((6, 8), k % 3, np.uint8))

    def write(body="", change=("", "")):
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        (tmp_path / "mine.py").write_text(HEAD.replace(*change) + lines)
        return check_data_set(data_set(f"{tmp_path}/mine.py:Mine"), tmp_path / "data")

    return write


FAULTS = {
    "no list of files": ("", ("def files", "def listed"), ["Mine has no method files(self, split)"]),
    "one name": ('class_names = ("ab")', ("", ""), ["class_names is 'ab': write a tuple of names"]),
    "a class twice": ('class_names = ("a", "b", "a")', ("", ""), ["class_names has a more than once"]),
    "too many classes": ("class_names = tuple(map(str, range(255)))", ("", ""), ["255 names", "room for 254"]),
    "no test split": ('splits = ("train",)', ("", ""), ["splits has no test, which every run needs"]),
    "a label without name": (
        "label_of = {0: 0, 1: 3}",
        ("", ""),
        ["label_of has 1: 3; ids are 0-255, labels 0-2 and 255"],
    ),
    "an id without name": ('class_names = ("a",)', ("", ""), ["train: reading 'train2': mask", "holds the class id 2"]),
    "masks without classes": ("class_names = ()", ("", ""), ["train: its images have masks, but class_names is empty"]),
    "classes without masks": (
        "",
        ('self.root / "masks" / image.name', "None"),
        ["names classes, but its images have no"],
    ),
    "a file that is missing": ("", ('"masks" / image', '"nowhere" / image'), ["opening train", "nowhere is missing"]),
    "an error of its own": (
        "",
        ("for image in", "self.absent\n        for image in"),
        ["opening train: in mine.py:13, Attr"],
    ),
    "another order each time": (
        "",
        ("sorted(", "(lambda x: random.sample([*x], 4))("),
        ["files() gives another order"],
    ),
    "images of another kind": (
        "def read_image(self, i):\n    return super().read_image(i) / 255",
        ("", ""),
        ["read_image gives float64 (6, 8, 3): it must be uint8 (height, width, 3), RGB"],
    ),
    "masks of another kind": (
        "def read_ids(self, i):\n    return super().read_ids(i)[..., None]",
        ("", ""),
        ["read_ids gives uint8 (6, 8, 1): it must be uint8 (height, width)"],
    ),
    "another size": (
        "def image_size(self, i):\n    return (8, 6)",
        ("", ""),
        ["image_size gives (8, 6), the image is (6, 8): (height, width)"],
    ),
    "a background that it denies": ("has_background = False", ("", ""), ["'train0': label 0 occurs", "has_background"]),
    "nothing but void": ("label_of = {0: 255, 1: 1, 2: 2}", ("", ""), ["'train0': all of its mask is void"]),
    "trained on what is tested": (
        "",
        ("self.root / split", 'self.root / "test"'),
        ["4 images are in train and in test"],
    ),
    "what no worker can be handed": (
        "def domains(self):\n    return {}\ndef __getstate__(self):\n    return lambda: 0",
        ("", ""),
        ["handing it to a worker process: "],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_said_in_words(check, fault):
    body, change, words = FAULTS[fault]
    # random orders are equal once in 24 tries
    text = next(filter(None, ("\n".join(check(body, change)) for _ in range(9))))
    for word in words:
        assert word in text


def test_a_class_without_fault_has_no_findings(check):
    assert check() == []


def test_packaged_data_sets_have_no_findings(tmp_path):
    folder = voc_tree(tmp_path, train=3, val=2, trainval=5)
    assert check_data_set(data_set("voc"), folder) == []
    assert check_data_set(open_dataset("voc", "val", folder)) == []


def test_another_class_is_no_data_set():
    assert check_data_set(Path) == ["Path is no data set: subclass densecl.data.dataset.DenseDataset"]


def test_the_command_says_what_to_mend(check, tmp_path, capsys):
    check()
    name, data = f"{tmp_path}/mine.py:Mine", str(tmp_path / "data")
    assert [is_data_set(text) for text in (name, "voc2012", "shapes", "mib+replay")] == [True, True, True, False]
    assert main(["check", name, "--data", data]) == 0
    assert capsys.readouterr().out == f"✓ {name} works: files, images, masks, labels, classes\n"
    assert main(["check", f"{name}(ending=.gif)", "--data", data]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("✗ opening train: no train images in")
    assert "2 faults in" in shown.err
