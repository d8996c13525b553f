"""Truths that are numbers: what mirroring, enlarging and turning do to them, and how readers give them."""

import math

import numpy as np
import pytest
import torch

from densecl.check.data_set import check_data_set
from densecl.data import open_dataset
from densecl.data.dataset import DenseDataset
from densecl.data.maps import read_depth, read_normals, write_depth, write_normals
from densecl.data.transforms import (
    AUGMENTATIONS,
    HorizontalFlip,
    RandomRescaleCrop,
    RandomResizedCrop,
    RandomRotation,
    ResizeCenterCrop,
    augmentation,
)
from densecl.errors import DataError
from densecl.tasks.depth import Depth
from densecl.tasks.normals import Normals

DEPTH, NORMALS = Depth("d").geometry(), Normals("n").geometry()
IMAGE = torch.randint(256, (3, 30, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def rng(seed=0):
    return np.random.default_rng(seed)


def plane(angle):
    """Normals (3, 30, 40) that lean to one side of the image by an angle in its plane, counter-clockwise from x."""
    vector = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle)), 1.0]) / 2**0.5
    return vector.view(3, 1, 1).expand(3, 30, 40).clone()


def test_a_mirrored_normal_looks_to_the_other_side_and_moves_with_its_pixel():
    normals = torch.nn.functional.normalize(torch.randn(3, 30, 40, generator=torch.Generator().manual_seed(1)), dim=0)
    image, mirrored = HorizontalFlip(1.0, NORMALS)(IMAGE, normals, rng())
    assert torch.equal(image, IMAGE.flip(-1))
    assert torch.equal(mirrored, torch.stack([-normals[0], normals[1], normals[2]]).flip(-1))
    again = HorizontalFlip(1.0, NORMALS)(image, mirrored, rng())
    assert torch.equal(again[0], IMAGE)
    assert torch.equal(again[1], normals)
    assert torch.equal(HorizontalFlip(1.0, DEPTH)(IMAGE, normals[:1], rng())[1], normals[:1].flip(-1))


def test_a_turned_normal_turns_with_the_image():
    transform = RandomRotation(15, NORMALS)
    angle = rng(3).uniform(-15, 15)
    _, turned = transform(IMAGE, plane(20), rng(3))
    torch.testing.assert_close(turned[:, 10:20, 15:25], plane(20 + angle)[:, 10:20, 15:25])
    assert not turned[:, 0, 0].any()  # what comes into view is not known
    marked = torch.zeros(1, 41, 41)
    marked[0, 20, 35] = 5.0  # to the right of the centre: turned counter-clockwise it goes up
    where = RandomRotation(15, DEPTH)(torch.zeros(3, 41, 41, dtype=torch.uint8), marked, rng(3))[1].nonzero()[0]
    assert (where[1] < 20) == (angle > 0)


@pytest.mark.parametrize("scaled", [True, False])
def test_what_looks_larger_is_nearer_if_the_setting_says_so(scaled):
    geometry = Depth("d", scaled=scaled).geometry()
    depth = torch.full((1, 30, 40), 6.0)
    cut = RandomResizedCrop((30, 40), (0.25, 0.25), (4 / 3, 4 / 3), geometry)(IMAGE, depth, rng())[1]
    torch.testing.assert_close(cut, torch.full((1, 30, 40), 3.0 if scaled else 6.0))
    rescaled = RandomRescaleCrop((30, 40), (2.0, 2.0), geometry)(IMAGE, depth, rng())[1]
    torch.testing.assert_close(rescaled, torch.full((1, 30, 40), 3.0 if scaled else 6.0))
    smaller = RandomRescaleCrop((30, 40), (0.5, 0.5), geometry)(IMAGE, depth, rng())[1]
    assert smaller.unique().tolist() == ([0.0, 12.0] if scaled else [0.0, 6.0])  # and padding without depth
    assert torch.equal(ResizeCenterCrop(15)(IMAGE, depth)[1], torch.full((1, 15, 15), 6.0))  # a smaller whole image


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_augmentation_mixes_depths_or_lets_normals_lose_their_length(name):
    """Depths of neighbours are not averaged: between a chair and the wall behind it is nothing."""
    depth = torch.where(torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(2)) < 0.5, 2.0, 7.0)
    made = augmentation(name, (16, 24), None, Depth("d", scaled=False).geometry())(IMAGE, depth, rng(1))[1]
    assert made.shape == (1, 16, 24)
    assert set(made.unique().tolist()) <= {0.0, 2.0, 7.0}
    normals = augmentation(name, (16, 24), None, NORMALS)(IMAGE, plane(30), rng(1))[1]
    length = normals.norm(dim=0)
    assert bool(((length - 1).abs() < 1e-5).logical_or(length == 0).all())


# ---- readers


def test_depth_and_normals_come_back_from_their_files(tmp_path):
    depth = rng().uniform(0.4, 12, (6, 9)).astype(np.float32)
    depth[0, 0] = 0
    write_depth(depth, tmp_path / "depth.png")
    read = read_depth(tmp_path / "depth.png")
    assert (read.shape, read.dtype) == ((1, 6, 9), np.float32)
    np.testing.assert_allclose(read[0], depth, atol=0.0006)
    assert read[0, 0, 0] == 0
    normals = rng(1).normal(size=(6, 9, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    write_normals(normals, tmp_path / "normals.png")
    cosine = (read_normals(tmp_path / "normals.png").transpose(1, 2, 0) * normals).sum(-1)
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.5


def test_black_and_grey_are_no_normals(tmp_path):
    from PIL import Image

    pixels = np.full((2, 2, 3), 128, np.uint8)
    pixels[0, 0], pixels[1, 1] = 0, (128, 128, 255)
    Image.fromarray(pixels).save(tmp_path / "n.png")
    normals = read_normals(tmp_path / "n.png")
    assert (normals != 0).any(0).tolist() == [[False, False], [False, True]]
    assert np.linalg.norm(normals[:, 1, 1]) == pytest.approx(1)


@pytest.mark.parametrize(("read", "words"), [(read_depth, "not of 16 bits"), (read_normals, "not RGB")])
def test_a_file_of_another_kind_is_named(tmp_path, read, words):
    from PIL import Image

    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match=rf"grey.png .*{words}"):
        read(tmp_path / "grey.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"cut.png cannot be read"):
        read(tmp_path / "cut.png")


class Slopes(DenseDataset):
    """Images of slopes, whose depth is made from their number."""

    class_names = ("slope",)
    splits = ("train", "test")
    truths = ("depth",)

    def files(self, split):
        for path in sorted(self.root.glob("*.png")):
            yield path.stem, path, path

    def truth_files(self, truth):
        return [self.root / f"{i}.{truth}" for i in self.ids]

    def read_truth(self, i):
        return np.full((1, 4, 6 + (i == 2)), i + 1.0, np.float32)


@pytest.fixture
def slopes(tmp_path):
    from PIL import Image

    for k in range(2):
        Image.fromarray(np.ones((4, 6), np.uint8)).save(tmp_path / f"{k}.png")
        (tmp_path / f"{k}.depth").write_text("")
    return tmp_path


def test_a_reader_gives_another_truth_of_the_same_images(slopes):
    reader = Slopes(slopes, "train")
    depth = reader.of("depth")
    assert torch.equal(depth.read(1).mask, torch.full((1, 4, 6), 2.0))
    assert torch.equal(depth.read(1).image, reader.read(1).image)
    assert torch.equal(reader.read(1).mask, torch.ones(4, 6, dtype=torch.uint8))
    assert depth.class_names == ()
    assert depth.content != reader.content
    assert (reader.fits_in_memory(2 * 4 * 24), reader.fits_in_memory(2 * 4 * 24 - 1)) == (True, False)
    assert (depth.fits_in_memory(2 * 7 * 24), depth.fits_in_memory(2 * 7 * 24 - 1)) == (True, False)


def test_what_is_not_there_or_does_not_fit_is_named(slopes):
    reader = Slopes(slopes, "train")
    with pytest.raises(DataError, match=r"'Slopes' has no normals.*beside labels it has: depth"):
        reader.of("normals")
    (slopes / "1.depth").unlink()
    with pytest.raises(DataError, match="1 of 2 files of depth of train are missing"):
        reader.of("depth")
    (slopes / "1.depth").write_text("")
    from PIL import Image

    Image.fromarray(np.ones((4, 6), np.uint8)).save(slopes / "2.png")
    (slopes / "2.depth").write_text("")
    with pytest.raises(DataError, match=r"2.depth is 7x4, its image .*2.png is 6x4"):
        Slopes(slopes, "train").of("depth").read_contents(2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((4, 6), np.float32), "float32 (4, 6): it must be float32 (channels, 4, 6)"),
        (np.ones((1, 4, 6)), "gives float64"),
        (np.full((1, 4, 6), np.inf, np.float32), "not finite"),
        (np.full((1, 4, 6), 2.0, np.float32), ""),
    ],
)
def test_the_check_of_a_data_set_looks_at_its_truths(slopes, monkeypatch, values, words):
    monkeypatch.setattr(Slopes, "read_truth", lambda self, i: values)
    monkeypatch.setattr(Slopes, "splits", ("train", "test"))
    findings = [f for f in check_data_set(Slopes(slopes, "train")) if "depth" in f]
    assert (len(findings), words in "".join(findings)) == (bool(words), True)


def test_labels_alone_have_no_other_truth(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    from data_trees import few_drawn

    few_drawn(monkeypatch, 2, 1, 1)
    with pytest.raises(DataError, match="'tints' has no depth"):
        open_dataset("tints", "train").of("depth")
