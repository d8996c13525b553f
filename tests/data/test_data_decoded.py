"""Images are decoded once, before a run; what could be decoded is remembered by the state of its file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_trees import voc_tree
from densecl.data.dataset import DenseDataset
from densecl.data.decoded import decode_images
from densecl.data.places import cache_folder
from densecl.data.sets.voc import VOC
from densecl.errors import DataError


@pytest.fixture
def voc(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    return voc_tree(tmp_path, train=5, val=2)


@pytest.fixture
def read(monkeypatch):
    """Names of the images that are decoded, in order of names when asked."""
    names, original = [], DenseDataset.read_image

    def read_image(self, i):
        names.append(self.ids[i])
        return original(self, i)

    monkeypatch.setattr(DenseDataset, "read_image", read_image)

    def taken():
        seen = sorted(names)
        names.clear()
        return seen

    return taken


def picture(voc: Path, k: int) -> Path:
    return voc / "JPEGImages" / f"2007_train_{k}.jpg"


def cut(path: Path) -> None:
    """Take the end of a file away; its header stays."""
    path.write_bytes(path.read_bytes()[:-200])


def test_an_image_is_decoded_once_whatever_split_or_truth_it_is_read_in(voc, read):
    dataset, seen = VOC(voc, "train"), []
    decode_images(dataset, np.array([0, 3]), progress=lambda *count: seen.append(count))
    assert (read(), seen) == (["2007_train_0", "2007_train_3"], [(2, 2)])
    decode_images(dataset, np.arange(5))
    assert read() == ["2007_train_1", "2007_train_2", "2007_train_4"]
    decode_images(VOC(voc, "val").without_masks(), np.arange(2))
    assert read() == ["2007_val_0", "2007_val_1"]
    for again in (dataset, dataset.cached(), VOC(voc, "test")):
        decode_images(again, np.arange(len(again)), progress=lambda *_: pytest.fail("a line of progress"))
    assert read() == []


def test_a_changed_image_alone_is_decoded_again(voc, read):
    dataset = VOC(voc, "train")
    decode_images(dataset, np.arange(5))
    read()
    Image.new("RGB", (8, 6)).save(picture(voc, 2))
    decode_images(dataset, np.arange(5))
    assert read() == ["2007_train_2"]


def test_a_cut_image_is_named_each_time_and_whole_ones_are_remembered(voc, read):
    dataset = VOC(voc, "train")
    cut(picture(voc, 4))
    for times in range(2):
        with pytest.raises(DataError, match=r"image .*2007_train_4\.jpg cannot be read"):
            decode_images(dataset, np.arange(5))
        assert read() == [f"2007_train_{k}" for k in range(5)][4 * times :]


def test_a_damaged_further_map_is_named(voc, tmp_path):
    class WithMap(VOC):
        def extra_files(self, i):
            return {"saliency": tmp_path / "map.png"}

    dataset = WithMap(voc, "train")
    Image.new("L", (8, 6)).save(tmp_path / "map.png")
    decode_images(dataset, np.arange(5))
    cut(tmp_path / "map.png")
    with pytest.raises(DataError, match=r"map\.png"):
        decode_images(dataset, np.arange(5))


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x93NUMPY\x01\x00"])
def test_a_broken_memory_is_made_again(voc, read, content):
    dataset = VOC(voc, "train")
    decode_images(dataset, np.arange(5))
    (place,) = (cache_folder() / "decoded").iterdir()
    whole = place.read_bytes()
    place.write_bytes(content)
    read()
    decode_images(dataset, np.arange(5))
    assert len(read()) == 5
    assert place.read_bytes() == whole
