"""The embedded data set: the same pixels everywhere, and drawn whole or not at all."""

import colorsys
import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest

from data_trees import few_drawn
from densecl.data import drawing, open_dataset
from densecl.data.drawing import Drawing
from densecl.data.sets import shapes
from densecl.data.sets.shapes import Shapes
from densecl.palette import palette

# SHA-256 of all images, then all masks, of train, val and test. `version` is its beginning.
PIXELS = "8d327f03ea67da8746719c95fc8fdb4b99a4c0794d1923a5a8254577ca7e48d6"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Shapes.write(tmp_path_factory.mktemp("cache") / "shapes")


@pytest.fixture(scope="module")
def drawings() -> dict[str, Drawing]:
    return {split: Shapes.draw(Shapes.counts[split], seed) for split, seed in Shapes.seeds.items()}


def test_pixels_are_pinned(drawings):
    digest = hashlib.sha256()
    for split in ("train", "val", "test"):
        digest.update(drawings[split].images.tobytes())
        digest.update(drawings[split].masks.tobytes())
    assert digest.hexdigest() == PIXELS
    assert PIXELS.startswith(Shapes.version)


def test_what_is_read_back_is_what_was_drawn(tree, drawings):
    for split, n in Shapes.counts.items():
        dataset = Shapes(tree, split)
        assert len(dataset) == n
        for i in range(n):
            sample = dataset.read(i)
            assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), drawings[split].images[i])
            assert np.array_equal(sample.mask.numpy(), drawings[split].masks[i])


def test_every_class_is_a_hue_and_a_shape():
    assert len(set(Shapes.class_names)) == 20
    assert set(Shapes.class_names) == {f"{hue} {shape}" for hue in shapes.HUES for shape in shapes.SHAPES}
    assert Shapes.class_names[0] == "red ring"  # pair 3 = hue 0, shape 3


def test_every_class_has_training_images_enough_and_no_split_repeats_another(drawings):
    counts = np.array([[(mask == c).any() for c in range(1, 21)] for mask in drawings["train"].masks]).sum(0)
    # 1.6 objects an image, uniform over 20 classes: 160 images a class, a few of them covered
    assert counts.min() > 110
    assert counts.max() < 210
    first = {drawing.images[0].tobytes() for drawing in drawings.values()}
    assert len(first) == 3


def test_labels_are_background_twenty_classes_and_a_little_void(drawings):
    share = np.bincount(drawings["train"].masks.ravel(), minlength=256) / drawings["train"].masks.size
    assert set(np.flatnonzero(share)) == {*range(21), 255}
    assert 0.6 < share[0] < 0.8
    assert 0.02 < share[255] < 0.08


def test_void_separates_every_object_from_all_else_and_is_one_pixel_wide(drawings):
    masks = drawings["val"].masks.astype(int)
    for one, other in ((masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1])):
        assert not ((one != other) & (one != 255) & (other != 255)).any()
    objects = (masks > 0) & (masks < 255)
    near = objects.copy()  # objects and their four neighbours
    near[:, 1:] |= objects[:, :-1]
    near[:, :-1] |= objects[:, 1:]
    near[:, :, 1:] |= objects[:, :, :-1]
    near[:, :, :-1] |= objects[:, :, 1:]
    assert near[masks == 255].mean() > 0.98  # the rest surrounds slivers whose own pixels a later border took


def test_drawing_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    whole = Shapes.draw(30, 5)
    monkeypatch.setattr(drawing, "CHUNK", 7)
    assert np.array_equal(Shapes.draw(30, 5).images, whole.images)


def test_colours_agree_with_the_standard_library():
    h, s, v = np.random.default_rng(0).random((3, 200))
    expected = [colorsys.hsv_to_rgb(*x) for x in zip(h, s, v, strict=True)]
    np.testing.assert_allclose(drawing.hsv_to_rgb(h, s, v), expected, atol=1e-12)
    np.testing.assert_allclose(drawing.hsv_to_rgb(h - 1, s, v), expected, atol=1e-12)


def test_outlines_have_the_areas_of_geometry():
    rows, columns = (a[None] - 99.5 for a in np.mgrid[0:200, 0:200].astype(float))
    radius = np.full((1, 1, 1), 80.0)
    areas = [drawing.outline(name, columns, rows, radius).sum() / 80**2 for name in shapes.SHAPES]
    # disc pi; cross: two bars of 2 x 0.66 less their middle; triangle: height 1.7, base 1.7; ring: 3/4 of the disc
    expected = [np.pi, 2 * 2 * 0.66 - 0.66**2, 1.7 * 1.7 / 2, 0.75 * np.pi]
    np.testing.assert_allclose(areas, expected, rtol=0.02)


def test_palette_is_vocs():
    colours = np.frombuffer(palette(), np.uint8).reshape(256, 3)
    assert colours[[0, 1, 2, 3, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def test_open_dataset_draws_into_the_cache_once(tmp_path, monkeypatch):
    few_drawn(monkeypatch, 4, 2, 3)
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    assert [len(open_dataset("shapes", split)) for split in ("train", "val", "test", "trainval")] == [4, 2, 3, 6]
    folder = tmp_path / f"shapes-{Shapes.version}"
    assert (folder / "classes.txt").read_text().split("\n")[:-1] == list(Shapes.class_names)
    marker = folder / "JPEGImages" / "train_0000.png"
    before = marker.stat().st_mtime_ns
    open_dataset("shapes", "test")
    assert marker.stat().st_mtime_ns == before
    assert open_dataset("shapes", "val", folder).root == folder


def test_several_writers_at_once_leave_one_whole_folder(tmp_path, monkeypatch):
    few_drawn(monkeypatch, 4, 2, 3)
    threads = [threading.Thread(target=Shapes.write, args=(tmp_path / "shapes",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Shapes(tmp_path / "shapes", "test")) == 3
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["shapes"]


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    few_drawn(monkeypatch, 4, 2, 3)

    def fail(n: int, seed: int) -> Drawing:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Shapes, "draw", fail)
        with pytest.raises(KeyboardInterrupt):
            Shapes.write(tmp_path / "shapes")
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]
    assert Shapes.write(tmp_path / "shapes").is_dir()
