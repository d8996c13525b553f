"""What is read is what the files hold, and every broken file is one clear error that names it."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_trees import LISTS, camvid_tree, noise_image, palette_mask, voc_tree
from densecl.data import data_set, open_dataset
from densecl.data.decode import image_size, present, read_indices
from densecl.data.sets.camvid import CamVid
from densecl.data.sets.voc import VOC
from densecl.errors import DataError, UnknownNameError


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return voc_tree(tmp_path)


def test_voc_sample_is_the_image_in_rgb_and_the_indices_of_the_mask(voc):
    dataset = VOC(voc, "train")
    image = noise_image(voc / "JPEGImages" / "2007_train_1.png", (6, 8), seed=9)
    (voc / "JPEGImages" / "2007_train_1.jpg").unlink()
    dataset = VOC(voc, "train")
    sample = dataset.read(1)
    assert sample.image.shape == (3, 6, 8)
    assert sample.image.dtype == sample.mask.dtype == torch.uint8
    assert torch.equal(sample.image, torch.from_numpy(image.transpose(2, 0, 1).copy()))
    expected = np.zeros((6, 8), np.uint8)
    expected[1:3], expected[3], expected[4, 2:5] = 1, 255, 2
    np.testing.assert_array_equal(sample.mask.numpy(), expected)
    np.testing.assert_array_equal(dataset.read_mask(1), expected)
    assert Path(dataset.image_files[1]) == voc / "JPEGImages" / "2007_train_1.png"
    assert Path(dataset.mask_files[0]) == voc / "SegmentationClass" / "2007_train_0.png"


def test_voc_has_twenty_classes_in_official_order(voc):
    dataset = VOC(voc, "val")
    assert len(dataset) == 2
    assert dataset.has_background
    names = dataset.class_names
    assert (names[0], names[14], names[19], len(names)) == ("aeroplane", "person", "tvmonitor", 20)


@pytest.mark.parametrize("inside", ["VOCdevkit/VOC2012", "VOCdevkit", "."])
def test_voc_root_may_be_the_folder_or_one_above(tmp_path, voc, inside):
    assert VOC(tmp_path / inside, "train").root.resolve() == voc.resolve()


def test_test_split_is_val_unless_the_tree_has_masks_for_its_test_list(voc):
    assert VOC(voc, "test").ids == VOC(voc, "val").ids
    (voc / LISTS / "test.txt").write_text("2008_000001\n")  # as in VOC's own test archive: no masks
    assert VOC(voc, "test").ids == VOC(voc, "val").ids
    (voc / LISTS / "test.txt").write_text("2007_train_0\n")
    assert VOC(voc, "test").ids == ("2007_train_0",)


def test_other_lists_take_the_place_of_the_usual_ones(voc):
    for name, ids in (("sbd_train", ("train_2", "val_0")), ("seg11valid", ("train_0",))):
        (voc / LISTS / f"{name}.txt").write_text("".join(f"2007_{i}\n" for i in ids))
    text = "voc(lists=(sbd_train, seg11valid))"
    assert open_dataset(text, "train", voc).ids == ("2007_train_2", "2007_val_0")
    assert open_dataset(text, "test", voc).ids == open_dataset(text, "val", voc).ids == ("2007_train_0",)
    with pytest.raises(DataError, match=r"the list .*no.txt is missing"):
        open_dataset("voc(lists=(no, seg11valid))", "train", voc)


@pytest.mark.parametrize("style", ["{0}\n", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png\n"])
def test_train_uses_the_augmented_list_and_masks_when_both_exist(voc, style):
    names = ["2007_train_0", "2007_train_1", "2007_train_2", "2007_val_0"]
    (voc / LISTS / "train_aug.txt").write_text("".join(style.format(n) for n in names))
    assert VOC(voc, "train").source == "train.txt + SegmentationClass"
    shutil.copytree(voc / "SegmentationClass", voc / "SegmentationClassAug")
    dataset = VOC(voc, "train")
    assert dataset.ids == tuple(names)
    assert Path(dataset.mask_files[3]) == voc / "SegmentationClassAug" / "2007_val_0.png"
    assert dataset.source == "train_aug.txt + SegmentationClassAug"
    assert VOC(voc, "val").source == "val.txt + SegmentationClass"


@pytest.mark.parametrize("prefix", ["CamVid/", "/SegNet/CamVid/", ""])
def test_camvid_classes_start_at_one_and_the_last_id_is_void(tmp_path, prefix):
    dataset = CamVid(camvid_tree(tmp_path, prefix), "trainval")
    assert not dataset.has_background
    assert dataset.ids == ("train0", "train1", "val0", "val1")
    expected = np.tile(np.array([*range(1, 12), 255], np.uint8), (5, 1))
    np.testing.assert_array_equal(dataset.read(0).mask.numpy(), expected)
    assert np.flatnonzero(dataset.read_labels(0)).tolist() == [*range(1, 12), 255]
    assert len(dataset.class_names) == 11


def test_datasets_travel_to_other_processes(voc):
    dataset = pickle.loads(pickle.dumps(VOC(voc, "train")))
    assert torch.equal(dataset.read(0).mask, VOC(voc, "train").read(0).mask)


def test_cached_samples_are_decoded_once_and_equal(voc):
    dataset = VOC(voc, "train").cached()
    assert isinstance(dataset, VOC)
    first, plain = dataset.read(2), VOC(voc, "train").read(2)
    assert dataset.read(2) is first
    assert torch.equal(first.image, plain.image)
    np.testing.assert_array_equal(dataset.read_mask(2), plain.mask.numpy())
    assert (dataset.ids, dataset.name) == (VOC(voc, "train").ids, "voc")
    assert torch.equal(pickle.loads(pickle.dumps(dataset)).read(2).image, plain.image)


def test_a_data_set_fits_in_memory_by_its_decoded_size(voc):
    dataset = VOC(voc, "train")
    assert dataset.fits_in_memory(3 * 4 * 6 * 8)
    assert not dataset.fits_in_memory(3 * 4 * 6 * 8 - 1)


# what a file may look like -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"compress_level": 0}, {"optimize": True}, {"bits": 4}])
def test_palette_masks_give_indices_however_they_were_written(tmp_path, options):
    labels = np.random.default_rng(0).integers(0, 16, (33, 21), dtype=np.uint8)
    palette_mask(tmp_path / "m.png", labels, **options)
    np.testing.assert_array_equal(read_indices(tmp_path / "m.png"), labels)


def test_filtered_rows_are_decoded(tmp_path):
    labels = (np.add.outer(np.arange(64), np.arange(64)) % 200).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "m.png")  # grey gradients make PNG writers choose row filters
    pixels = read_indices(tmp_path / "m.png")
    np.testing.assert_array_equal(pixels, labels)
    assert pixels.flags.writeable


def test_present_finds_exactly_the_ids_of_a_mask():
    rng = np.random.default_rng(1)
    for shape in [(1, 1), (3, 5), (8, 8), (17, 23)]:
        for high in (1, 3, 256):
            mask = np.sort(rng.integers(0, high, shape, dtype=np.uint8).ravel()).reshape(shape)
            assert np.flatnonzero(present(mask)).tolist() == np.unique(mask).tolist()


@pytest.mark.parametrize(
    "options", [{"format": "JPEG"}, {"format": "JPEG", "progressive": True}, {"format": "PNG"}, {"format": "BMP"}]
)
def test_image_size_comes_from_the_header(tmp_path, options):
    Image.new("RGB", (37, 11)).save(tmp_path / "image", **options)
    assert image_size(tmp_path / "image") == (11, 37)


def test_image_size_is_found_behind_a_long_comment(tmp_path):
    Image.new("RGB", (37, 11)).save(tmp_path / "image.jpg", comment=b"x" * 5000)
    assert image_size(tmp_path / "image.jpg") == (11, 37)


@pytest.mark.parametrize(("image", "mask"), [(".JPG", ".png"), (".jpeg", ".png"), (".PNG", ".PNG")])
def test_files_are_found_by_their_stem_whatever_the_case_of_their_suffix(voc, image, mask):
    plain = VOC(voc, "train")
    for k in range(3):
        jpg = voc / "JPEGImages" / f"2007_train_{k}.jpg"
        jpg.rename(jpg.with_suffix(image))
        png = voc / "SegmentationClass" / f"2007_train_{k}.png"
        png.rename(png.with_suffix(mask))
    dataset = VOC(voc, "train")
    assert dataset.ids == plain.ids
    assert Path(dataset.image_files[1]).name == f"2007_train_1{image}"
    assert dataset.read(1).mask.any()


@pytest.mark.parametrize(
    "text", ["\ufeff{0}\n{1}\n", "{0}.jpg\r\n{1}.JPG\r\n", "\ufeff/JPEGImages/{0}.jpg /m/{0}.png\n{1}"]
)
def test_lists_are_read_as_other_systems_write_them(voc, text):
    file = voc / "ImageSets" / "Segmentation" / "train.txt"
    file.write_text(text.format("2007_train_0", "2007_train_1"), encoding="utf-8")
    assert VOC(voc, "train").ids == ("2007_train_0", "2007_train_1")


def test_a_list_in_another_encoding_is_refused_in_words(voc):
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_train_0\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"train\.txt is no text in UTF-8\. save it as UTF-8"):
        VOC(voc, "train")


# bad input: one DataError that names the file -------------------------------------------------------------------------


def mask_of(voc: Path) -> Path:
    return voc / "SegmentationClass" / "2007_train_0.png"


@pytest.mark.parametrize("read", ["read", "read_mask", "read_labels"])
def test_illegal_class_id_is_refused_with_file_ids_and_what_is_legal(voc, read):
    palette_mask(mask_of(voc), np.array([[0, 21], [77, 255]] * 3, np.uint8).repeat(4, 1))
    with pytest.raises(DataError, match=r"2007_train_0\.png holds the class ids 21, 77\. legal in voc: 0-20, 255"):
        getattr(VOC(voc, "train"), read)(0)


@pytest.mark.parametrize("read", ["read", "read_labels"])
def test_a_mask_of_another_size_than_its_image_is_refused(voc, read):
    palette_mask(mask_of(voc), np.zeros((5, 8), np.uint8))
    with pytest.raises(DataError, match=r"2007_train_0\.png is 8x5, its image .*2007_train_0\.jpg is 8x6"):
        getattr(VOC(voc, "train"), read)(0)


def test_a_mask_with_colours_is_refused(voc):
    Image.new("RGB", (8, 6)).save(mask_of(voc))
    with pytest.raises(DataError, match=r"2007_train_0\.png is an image of kind RGB, not of class ids"):
        VOC(voc, "train").read_mask(0)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", "cut"])
def test_an_unreadable_mask_is_named(voc, content):
    mask_of(voc).write_bytes(mask_of(voc).read_bytes()[:-30] if content == "cut" else content)
    with pytest.raises(DataError, match=r"mask .*2007_train_0\.png cannot be read"):
        VOC(voc, "train").read_mask(0)


@pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
def test_an_unreadable_image_is_named(voc, content):
    image = voc / "JPEGImages" / "2007_train_0.jpg"
    image.write_bytes(image.read_bytes()[:-60] if content == "cut" else content)
    with pytest.raises(DataError, match=r"image .*2007_train_0\.jpg cannot be read"):
        VOC(voc, "train").read(0)


def test_a_file_that_vanished_is_named(voc):
    dataset = VOC(voc, "train")
    mask_of(voc).unlink()
    with pytest.raises(DataError, match=r"mask .*2007_train_0\.png is missing"):
        dataset.read(0)


def test_a_list_that_names_absent_files_gives_their_number_and_the_first(voc):
    with (voc / LISTS / "train.txt").open("a") as file:
        file.writelines(f"absent_{i}\n" for i in range(5))
    with pytest.raises(
        DataError,
        match=r"5 of 8 masks .*train\.txt.*absent_0\.png, absent_1\.png, absent_2\.png, \.\.\..*densecl data get",
    ):
        VOC(voc, "train")
    for i in range(5):
        shutil.copy(mask_of(voc), voc / "SegmentationClass" / f"absent_{i}.png")
    with pytest.raises(DataError, match=r"5 of 8 images .*absent_0\.jpg"):
        VOC(voc, "train")


@pytest.mark.parametrize("folder", ["SegmentationClass", "JPEGImages", "ImageSets"])
def test_a_missing_folder_is_named_with_what_to_do(voc, folder):
    shutil.rmtree(voc / folder)
    with pytest.raises(DataError, match=rf"{folder}.* missing.*densecl data get voc2012"):
        VOC(voc, "train")


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("a\nb\na\n", "names a more than once")])
def test_a_useless_list_is_named(voc, text, message):
    (voc / LISTS / "train.txt").write_text(text)
    with pytest.raises(DataError, match=rf"train\.txt.* {message}"):
        VOC(voc, "train")


def test_camvid_refuses_absent_files_and_broken_lines(tmp_path):
    folder = camvid_tree(tmp_path)
    (folder / "valannot" / "val1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 masks .*valannot: val1\.png"):
        CamVid(folder, "val")
    (folder / "val.txt").write_text("one_word\n")
    with pytest.raises(DataError, match=r"val\.txt has the line 'one_word'"):
        CamVid(folder, "val")
    with pytest.raises(DataError, match="no CamVid layout"):
        CamVid(tmp_path / "elsewhere", "val")


# where data is found --------------------------------------------------------------------------------------------------


def test_data_is_found_in_the_folder_its_usual_subfolders_or_the_only_other_one(tmp_path, monkeypatch):
    odd = voc_tree(tmp_path / "my-pictures")
    camvid_tree(tmp_path / "camvid")
    assert data_set("voc").locate(tmp_path) == odd
    usual = voc_tree(tmp_path / "voc2012")
    assert data_set("voc").locate(tmp_path) == usual
    assert data_set("voc2012").locate(tmp_path / "my-pictures") == odd
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path))
    assert data_set("voc").locate() == usual
    assert open_dataset("camvid", "test").root == tmp_path / "camvid" / "CamVid"


def test_several_candidates_are_not_guessed_between(tmp_path):
    voc_tree(tmp_path / "one")
    voc_tree(tmp_path / "two")
    with pytest.raises(DataError, match=r"several folders .*one.*two.*name one with --data"):
        data_set("voc").locate(tmp_path)


def test_absent_data_lists_the_places_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(
        DataError, match=r"nowhere \(from DENSECL_DATA\): there is no such folder.*densecl data get voc2012"
    ) as caught:
        open_dataset("voc", "train")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"no camvid data in .*copy the folder CamVid"):
        open_dataset("camvid", "train", tmp_path)


def test_unknown_names_and_splits_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'camvid'"):
        open_dataset("camvd", "train")
    with pytest.raises(UnknownNameError, match=r"unknown split 'vla'.*did you mean 'val'"):
        VOC(voc_tree(tmp_path), "vla")
