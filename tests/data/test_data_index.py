"""The class index says what the masks hold, and keeps its answer only as long as it is true."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.index import measure_index
from bench.rows import Bench
from data_trees import camvid_tree, palette_mask, voc_tree
from densecl.data.class_index import _place, class_index, for_each, scan
from densecl.data.dataset import DenseDataset
from densecl.data.sets.camvid import CamVid
from densecl.data.sets.voc import VOC
from densecl.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def voc(tmp_path):
    return voc_tree(tmp_path, train=5, val=1)


def no_scan(monkeypatch):
    def fail(self, i):
        raise AssertionError("scanned")

    monkeypatch.setattr(DenseDataset, "read_contents", fail)


def test_index_equals_the_unique_labels_of_each_mask(tmp_path, voc):
    rng = np.random.default_rng(0)
    for i in range(5):
        palette_mask(
            voc / "SegmentationClass" / f"2007_train_{i}.png", rng.choice([0, 3, 7, 20, 255], (6, 8)).astype(np.uint8)
        )
    for dataset in (VOC(voc, "train"), CamVid(camvid_tree(tmp_path / "c"), "train")):
        index = class_index(dataset)
        assert index.shape == (len(dataset), 256)
        assert index.dtype == bool
        for i in range(len(dataset)):
            assert np.flatnonzero(index[i]).tolist() == np.unique(dataset.read_mask(i)).tolist()


def test_second_call_does_not_scan(voc, monkeypatch):
    dataset = VOC(voc, "train")
    first = class_index(dataset)
    no_scan(monkeypatch)
    np.testing.assert_array_equal(class_index(dataset), first)
    np.testing.assert_array_equal(class_index(dataset.cached()), first)


def test_two_splits_in_one_file_are_told_apart(voc):
    halves = [VOC(voc, "train"), VOC(voc, "train")]
    for half, names in zip(halves, (("a", "b"), ("c", "d")), strict=True):
        half.ids = names
        half.mask_files = half.image_files = (halves[0].mask_files[0],) * 2
    assert _place(halves[0], None) != _place(halves[1], None)
    assert _place(halves[0], None) == _place(halves[0], None)


def test_a_changed_mask_is_noticed(voc):
    dataset = VOC(voc, "train")
    assert not class_index(dataset)[2, 9]
    palette_mask(Path(dataset.mask_files[2]), np.full((6, 8), 9, np.uint8))
    assert np.flatnonzero(class_index(dataset)[2]).tolist() == [9]


def relabelled(file: Path, how: str) -> None:
    """Give an object of a mask another class; the size of the file stays, and its time if it is replaced."""
    before, labels = file.stat(), np.array(Image.open(file))
    labels[labels == 2] = 5
    target = file if how == "in place" else file.with_name("new.png")
    palette_mask(target, labels, compress_level=0)
    assert target.stat().st_size == before.st_size
    if how == "replaced":
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        target.replace(file)


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_other_labels_in_a_file_of_the_same_size_are_other_data(tmp_path, voc, how):
    dataset = VOC(voc, "train")
    palette_mask(Path(dataset.mask_files[2]), dataset.read_mask(2), compress_level=0)
    before, copy = dataset.content, VOC(shutil.copytree(voc, tmp_path / "copy" / "VOC2012"), "train")
    assert copy.content == before
    relabelled(Path(dataset.mask_files[2]), how)
    after = VOC(voc, "train").content
    assert after != before
    assert VOC(voc, "train").content == after  # from what was kept
    assert VOC(voc, "train").without_masks().content == copy.without_masks().content


def test_the_same_labels_in_another_file_are_the_same_data(voc):
    dataset = VOC(voc, "train")
    before, file = dataset.content, Path(dataset.mask_files[2])
    Image.fromarray(dataset.read_mask(2)).save(file, compress_level=0)
    assert VOC(voc, "train").content == before


@pytest.mark.parametrize("broken", [b"", b"PK\x03\x04 no zip", "cut", "flipped"])
def test_a_broken_kept_index_is_scanned_again(tmp_path, voc, broken):
    dataset = VOC(voc, "train")
    first = class_index(dataset)
    (kept,) = (tmp_path / "cache" / "index").iterdir()
    content = bytearray(kept.read_bytes())
    if broken == "flipped":
        content[200] ^= 0xFF
    kept.write_bytes(content[: len(content) // 2] if broken == "cut" else content if broken == "flipped" else broken)
    np.testing.assert_array_equal(class_index(dataset), first)
    np.testing.assert_array_equal(class_index(dataset), first)


def test_bad_masks_are_refused_by_name_and_nothing_is_kept(tmp_path, voc):
    palette_mask(voc / "SegmentationClass" / "2007_train_3.png", np.full((6, 8), 99, np.uint8))
    with pytest.raises(DataError, match=r"2007_train_3\.png holds the class id 99"):
        class_index(VOC(voc, "train"))
    palette_mask(voc / "SegmentationClass" / "2007_train_3.png", np.zeros((8, 6), np.uint8))
    with pytest.raises(DataError, match=r"2007_train_3\.png is 6x8, its image"):
        class_index(VOC(voc, "train"))
    assert not (tmp_path / "cache" / "index").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_reaches_the_total_whatever_the_workers(workers):
    seen, calls = [], []
    for_each(calls.append, 100, workers=workers, progress=lambda done, total: seen.append((done, total)))
    assert sorted(calls) == list(range(100))
    assert seen[-1] == (100, 100)
    assert seen == sorted(seen)


def test_an_empty_data_set_has_an_empty_index(voc):
    empty = VOC(voc, "train")
    empty.ids = ()
    assert scan(empty).labels.shape == (0, 256)


def test_bench_measures_both_and_keeps_nothing(tmp_path, voc):
    scanned, kept = measure_index(Bench(2), VOC(voc, "train"))
    assert "of 5 masks" in scanned.what
    assert scanned.ratio.median > 0
    assert kept.seconds[0] < 0.1
    assert not (tmp_path / "cache").exists()
