"""The readers on real files; skipped when `DENSECL_SHARED` (default: `shared` beside the checkout) has no data."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.index import measure_index
from bench.rows import Bench
from densecl.data import open_dataset
from densecl.data.class_index import class_index
from densecl.data.transforms import AUGMENTATIONS, augmentation
from densecl.data.verify import verify

SHARED = Path(os.environ.get("DENSECL_SHARED") or Path(__file__).parents[3] / "shared") / "data"
pytestmark = pytest.mark.skipif(not (SHARED / "voc-mini").is_dir(), reason="no real data here")


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    monkeypatch.setenv("DENSECL_DATA", str(SHARED))


@pytest.mark.parametrize(("name", "split", "images", "classes"), [
    ("voc", "train", 886, 20), ("voc", "val", 401, 20), ("voc", "test", 401, 20), ("voc", "trainval", 1287, 20),
    ("camvid", "train", 367, 11), ("camvid", "val", 101, 11), ("camvid", "test", 233, 11),
])  # fmt: skip
def test_every_split_is_found_and_indexed(name, split, images, classes):
    dataset = open_dataset(name, split)
    index = class_index(dataset)
    assert index.shape == (images, 256)
    assert index[:, 1 : classes + 1].any(0).all()
    assert not index[:, classes + 1 : 255].any()
    assert index[:, 0].any() == dataset.has_background
    sample = dataset.read(images // 2)
    assert sample.image.shape[1:] == sample.mask.shape
    assert np.flatnonzero(index[images // 2]).tolist() == sample.mask.unique().tolist()


def test_classes_of_real_masks_agree_with_the_published_ones():
    published = json.loads((SHARED / "voc-lists" / "image_classes.json").read_text())
    published = published.get("images", published)
    dataset = open_dataset("voc", "trainval")
    index = class_index(dataset)
    agree = [set(np.flatnonzero(index[i, 1:21]) + 1) <= set(published[name]) for i, name in enumerate(dataset.ids)]
    assert np.mean(agree) == 1  # the small masks may have lost a class of a few pixels, and gained none


def test_real_pairs_pass_through_every_augmentation():
    dataset = open_dataset("voc", "train")
    for name in AUGMENTATIONS:
        image, mask = augmentation(name, 128, None)(*dataset.read(7), np.random.default_rng(0))
        assert image.shape == (3, 128, 128)
        assert mask.shape == (128, 128)
        assert set(mask.unique().tolist()) <= {*range(21), 255}


@pytest.mark.parametrize("name", ["voc", "camvid"])
def test_real_data_has_no_errors(name):
    assert [f for f in verify(name) if f.level == "error"] == []


def test_index_costs_less_than_decoding_twice():
    scanned, kept = measure_index(Bench(3), open_dataset("voc", "trainval"))
    assert least(scanned) < 2
    assert least(kept) < 0.2


def least(row):
    """The least time of the processor, ours over the reference's: other programs disturb neither."""
    return min(ours.processor for ours, _ in row.turns) / min(reference.processor for _, reference in row.turns)
