"""The data of task sequences: drawn figures and tints, folders of images, style images."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_trees import drawn_sets, few_drawn, noise_image, voc_tree
from densecl.data import drawing, open_dataset, styles
from densecl.data.class_index import class_index
from densecl.data.sets import tints
from densecl.data.sets.figures import Figures
from densecl.data.sets.folder import ImageFolder
from densecl.data.sets.tints import Tints
from densecl.data.styles import style_image
from densecl.data.verify import verify
from densecl.errors import DataError, UnknownNameError
from densecl.streams.scenario import TaskSource, class_incremental, task_sequence
from densecl.tasks import Segmentation

# SHA-256 of all images, then all masks, of train, val and test, split by split. `version` is its beginning.
PIXELS = {
    "figures": "3c4765f65e3ff60286b845cb4856fbabf0ac1f759d1641de45d7d38cd92a6dd9",
    "tints": "4577c100ff0f92d49922ca62fd6d5f16f8f55f059280c61f77ed87accb3c6512",
}
CLASSES = {"figures": Figures, "tints": Tints}


@pytest.fixture(scope="module")
def drawings():
    return {
        name: {split: drawn.draw(drawn.counts[split], seed) for split, seed in drawn.seeds.items()}
        for name, drawn in CLASSES.items()
    }


@pytest.mark.parametrize("name", CLASSES)
def test_pixels_are_pinned(drawings, name):
    digest = hashlib.sha256()
    for split in ("train", "val", "test"):
        digest.update(drawings[name][split].images.tobytes())
        digest.update(drawings[name][split].masks.tobytes())
    assert digest.hexdigest() == PIXELS[name]
    assert PIXELS[name].startswith(CLASSES[name].version)


@pytest.mark.parametrize("name", CLASSES)
def test_drawing_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch, name):
    whole = CLASSES[name].draw(30, 5)
    monkeypatch.setattr(drawing, "CHUNK", 7)
    assert np.array_equal(CLASSES[name].draw(30, 5).images, whole.images)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_all_common_and_surrounded_by_void(drawings, name):
    masks, classes = drawings[name]["train"].masks, len(CLASSES[name].class_names)
    share = np.bincount(masks.ravel(), minlength=256) / masks.size
    assert set(np.flatnonzero(share)) == {*range(classes + 1), 255}
    assert share[1 : classes + 1].min() > 0.02
    assert 0.6 < share[0] < 0.85
    assert 0.02 < share[255] < 0.08
    masks = drawings[name]["val"].masks.astype(int)
    for one, other in ((masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1])):
        assert not ((one != other) & (one != 255) & (other != 255)).any()


def test_outlines_have_the_areas_of_geometry():
    rows, columns = (a[None] - 199.5 for a in np.mgrid[0:400, 0:400].astype(float))
    radius = np.full((1, 1, 1), 160.0)
    areas = [drawing.outline(name, columns, rows, radius).sum() / 160**2 for name in Figures.class_names]
    # square of side 1.5; bar 2 x 0.7; half a disc and 0.1 x 2 of the other; star: half the integral of the squared
    # radius (0.65 + 0.35 cos 5a)^2 = pi (0.65^2 + 0.35^2 / 2)
    expected = [2.25, 1.4, np.pi / 2 + 0.2, np.pi * (0.65**2 + 0.35**2 / 2)]
    np.testing.assert_allclose(areas, expected, rtol=0.01)


def test_colour_does_not_tell_figures_apart(drawings):
    drawing = drawings["figures"]["train"]
    means = np.stack([drawing.images[drawing.masks == c].mean(0) for c in range(1, 5)])  # (4, 3) RGB
    assert (means.max(0) - means.min(0)).max() < 12  # of 255, where single objects spread over all of it


def hues(pixels):
    """Of RGB (N, 3), in 0..1."""
    return np.asarray(Image.fromarray(pixels[None]).convert("HSV"))[0, :, 0] / 255


def test_the_outline_tells_the_hue_and_the_brightness_that_of_the_background(drawings):
    drawing = drawings["tints"]["val"]
    for label, hue in enumerate(tints.HUES, start=1):
        difference = np.abs(hues(drawing.images[drawing.masks == label]) - hue)
        difference = np.minimum(difference, 1 - difference)
        assert np.median(difference) < 0.03
        assert np.mean(difference < 0.08) > 0.95
    background = drawing.images[drawing.masks == 0].astype(int)
    bright = background.max(1) / 255
    blue = background[:, 2] > background[:, 0]
    assert blue[bright < 0.35].mean() > 0.95
    assert blue[bright > 0.65].mean() < 0.05


def test_predicting_grey_is_far_from_right(drawings):
    rgb = drawings["tints"]["test"].images.astype(float)
    y = rgb @ [0.299, 0.587, 0.114]
    chroma = np.stack([(rgb[..., 2] - y) / 1.772, (rgb[..., 0] - y) / 1.402])
    assert 900 < (chroma**2).mean() < 1200


def test_figures_and_tints_are_drawn_into_the_cache_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    few_drawn(monkeypatch, 4, 2, 3)
    for name, drawn in CLASSES.items():
        assert [len(open_dataset(name, split)) for split in ("train", "val", "test", "trainval")] == [4, 2, 3, 6]
        folder = tmp_path / f"{name}-{drawn.version}"
        before = (folder / "JPEGImages" / "train_0000.png").stat().st_mtime_ns
        dataset = open_dataset(name, "test")
        assert (folder / "JPEGImages" / "train_0000.png").stat().st_mtime_ns == before
        drawing = drawn.draw(3, drawn.seeds["test"])
        assert np.array_equal(dataset.read(1).image.permute(1, 2, 0).numpy(), drawing.images[1])
        assert np.array_equal(dataset.read(1).mask.numpy(), drawing.masks[1])
        assert dataset.class_names == drawn.class_names
        assert open_dataset(name, "val", folder).root == folder
        assert drawn.make() == folder
        assert dataset.content == f"{name} {drawn.version} test"
        assert not any(finding.level == "error" for finding in verify(name))


def test_a_drawn_folder_is_not_taken_for_another_set(tmp_path, monkeypatch):
    few_drawn(monkeypatch, 2, 1, 1)
    folder = Figures.write(tmp_path / "drawn")
    places = {drawn.name: drawn.find(folder) for drawn in drawn_sets()}
    assert places == {"figures": folder, "marks": None, "scenes": None, "shapes": None, "tints": None}


# ---- folders of images


def tree(root: Path, **splits: int) -> Path:
    for split, count in splits.items():
        for i in range(count):
            noise_image(root / split / f"{i:02d}.png", (6, 9), seed=i)
    return root


def test_a_flat_folder_holds_back_every_tenth(tmp_path):
    tree(tmp_path, **{".": 21})
    train, val, test = (open_dataset("folder", split, tmp_path) for split in ("train", "val", "test"))
    assert (len(train), val.ids, test.ids) == (19, ("09.png", "19.png"), ("09.png", "19.png"))
    assert not set(train.ids) & set(val.ids)
    sample = val.read(0)
    assert (sample.image.shape, sample.mask.shape) == ((3, 6, 9), (6, 9))
    assert not sample.mask.any()
    assert not train.has_masks


def test_split_folders_are_splits_and_may_have_folders(tmp_path):
    tree(tmp_path / "images", **{"train/a": 2, "train/b": 3, "val": 4})
    assert [len(open_dataset("folder", s, tmp_path)) for s in ("train", "val", "test")] == [5, 4, 4]
    assert open_dataset("folder", "train", tmp_path).ids[0] == "a/00.png"


def test_images_without_masks_go_the_way_of_all_data(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    dataset = open_dataset("folder", "train", tree(tmp_path / "images", **{".": 12}))
    index = class_index(dataset)
    assert index[:, 0].all()
    assert not index[:, 1:].any()
    cached = dataset.cached()
    assert cached.read(3) is cached.read(3)
    assert np.array_equal(cached.read_mask(4), np.zeros((6, 9), np.uint8))
    assert np.array_equal(pickle.loads(pickle.dumps(cached)).read(3).image, dataset.read(3).image)


def test_masks_can_be_left_unread(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    folder = voc_tree(tmp_path)
    voc = open_dataset("voc", "train", folder)
    for mask in (folder / "SegmentationClass").iterdir():
        mask.unlink()
    plain = voc.without_masks()
    assert plain.ids == voc.ids
    assert not plain.read(0).mask.any()
    assert class_index(plain)[:, 0].all()


def test_folders_that_do_not_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no images data in"):
        open_dataset("folder", "train", tmp_path)
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        open_dataset("folder", "train")
    tree(tmp_path, **{".": 3})
    with pytest.raises(DataError, match="no val images"):
        open_dataset("folder", "val", tmp_path)
    with pytest.raises(UnknownNameError, match="split"):
        ImageFolder(tmp_path, "trainval")
    (tmp_path / "01.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"01\.png cannot be read"):
        open_dataset("folder", "train", tmp_path).read(1)
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"01\.png cannot be read"):
        class_index(open_dataset("folder", "train", tmp_path))


# ---- style images


def test_drawn_styles_are_pinned():
    digests = {name: hashlib.sha256(style_image(name).tobytes()).hexdigest()[:16] for name in styles.DRAWN}
    assert digests == {"swirls": "fe08a8088148d72e", "waves": "a5351df7f11ff84e"}
    assert all(style_image(name).shape == (96, 96, 3) for name in styles.DRAWN)


def test_a_style_is_found_by_words_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path))
    pixels = noise_image(tmp_path / "style" / "van_gogh_starry_night_1889.png", (20, 30))
    noise_image(tmp_path / "style" / "night_watch.png", (20, 30))
    noise_image(tmp_path / "elsewhere.png", (8, 8))
    for name in (
        "starry-night",
        "Starry Night",
        "night starry",
        str(tmp_path / "style/van_gogh_starry_night_1889.png"),
    ):
        assert np.array_equal(style_image(name), pixels)
    assert np.array_equal(style_image("starry", tmp_path / "style"), pixels)
    assert style_image("starry", size=10).shape == (10, 15, 3)
    with pytest.raises(DataError, match=r"'night' is one of several.*night_watch\.png, van_gogh"):
        style_image("night")


def test_a_style_that_is_missing_or_unreadable_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no style image 'scream' in .*style.*words 'scream'.*known: swirls, waves"):
        style_image("scream")
    with pytest.raises(DataError, match=r"style image .*no/such\.jpg is missing"):
        style_image("no/such.jpg")
    (tmp_path / "style").mkdir()
    (tmp_path / "style" / "scream.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"scream\.jpg cannot be read"):
        style_image("scream")


def test_segmentation_on_images_without_masks_is_refused_by_the_name_of_the_data_set(tmp_path):
    for k in range(12):
        noise_image(tmp_path / f"{k:02d}.png", (6, 9), seed=k)
    train, test = (open_dataset("folder", split, tmp_path) for split in ("train", "test"))
    for make in (
        lambda: class_incremental(train, test, ((1,), (2,))),
        lambda: task_sequence([TaskSource(Segmentation("s", classes=0), train, test)]),
    ):
        with pytest.raises(
            DataError, match=r"the data set 'folder' has no masks .*segmentation needs one for each image"
        ):
            make()
