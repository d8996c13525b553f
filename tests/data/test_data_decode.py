"""Images are read alike for training and for prediction; plain ones are what PIL decodes."""

import contextlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from data_trees import palette_mask, voc_tree
from densecl.data.dataset import DenseDataset
from densecl.data.decode import image_size, read_indices, read_photo, read_rgb
from densecl.data.sets.voc import VOC
from densecl.errors import DataError, SettingError


class Pictures(DenseDataset):
    """All images of a folder, with masks beside them in `masks`."""

    class_names = ("a",)

    def files(self, split):
        for image in sorted(self.root.glob("*.*")):
            yield image.name, image, self.root / "masks" / f"{image.stem}.png"


class Stored(Pictures):
    """The same, with masks of the pixels as they are stored."""

    upright = False


def smooth(height=6, width=4):
    """An image that JPEG keeps nearly as it is, bright at the top left."""
    return (
        np.add.outer(np.arange(height, 0, -1) * 12, np.arange(width, 0, -1) * 9)[..., None]
        .repeat(3, 2)
        .astype(np.uint8)
    )


def turned(path, number, **options):
    tag = Image.Exif()
    tag[0x0112] = number
    Image.fromarray(smooth()).save(path, exif=tag, **options)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp"])
def test_plain_images_are_what_pil_decodes(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        expected = np.array(image)
    for upright in (True, False):
        np.testing.assert_array_equal(read_rgb(tmp_path / name, upright=upright), expected)
        assert image_size(tmp_path / name, upright=upright) == (9, 7)
    np.testing.assert_array_equal(read_photo(tmp_path / name).pixels, expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (4, np.flipud),
        (5, lambda x: x.transpose(1, 0, 2)), (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(x, 2).transpose(1, 0, 2)), (8, np.rot90),
    ],
)  # fmt: skip
def test_all_eight_orientations_stand_upright_or_stay_as_stored(tmp_path, name, number, expected):
    turned(tmp_path / name, number)
    upright = expected(smooth())
    np.testing.assert_array_equal(read_rgb(tmp_path / name), upright)
    assert image_size(tmp_path / name, upright=True) == upright.shape[:2]
    if name != "a.tif":  # PIL always turns it
        np.testing.assert_array_equal(read_rgb(tmp_path / name, upright=False), smooth())
        assert image_size(tmp_path / name) == (6, 4)


@pytest.mark.parametrize(("cls", "size"), [(Pictures, (4, 6)), (Stored, (6, 4))])
def test_a_data_set_says_how_its_masks_were_drawn(tmp_path, cls, size):
    turned(tmp_path / "a.jpg", 6, quality=100)
    for shape in ((6, 4), (4, 6)):
        palette_mask(tmp_path / "masks" / "a.png", np.ones(shape, np.uint8))
        dataset = cls(tmp_path, "train")
        assert dataset.image_size(0) == size
        if shape == size:
            assert dataset.read(0).image.shape == (3, *size)
            assert dataset.read_labels(0)[1]
        else:
            for read in (dataset.read, dataset.read_labels):
                with pytest.raises(DataError, match=r"a\.png is .*its image .*a\.jpg is"):
                    read(0)
    assert np.abs(Pictures(tmp_path, "train").read_image(0).astype(int) - np.rot90(smooth(), -1)).max() < 8


@pytest.mark.parametrize("kind", ["16 bits", "alpha", "palette with alpha", "grey"])
def test_training_and_prediction_see_the_same_pixels(tmp_path, kind):
    grey = np.arange(24, dtype=np.uint8).reshape(6, 4) * 10
    if kind == "16 bits":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif kind == "alpha":
        image = Image.fromarray(np.concatenate([smooth(), grey[..., None]], 2))
    elif kind == "palette with alpha":
        image = Image.fromarray(grey // 128)
        image.putpalette([10, 20, 30, 200, 210, 220])
        image.info["transparency"] = 1
    else:
        image = Image.fromarray(grey)
    image.save(tmp_path / "a.png")
    palette_mask(tmp_path / "masks" / "a.png", np.ones((6, 4), np.uint8))
    seen = Pictures(tmp_path, "train").read(0).image.permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(seen, read_photo(tmp_path / "a.png").pixels)
    if kind in ("16 bits", "grey"):
        np.testing.assert_array_equal(seen, grey[..., None].repeat(3, 2))
    elif kind == "palette with alpha":
        np.testing.assert_array_equal(seen, np.array([[10, 20, 30], [255, 255, 255]])[grey // 128])


def test_broken_metadata_does_not_make_an_image_unreadable(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "a.png", exif=b"Exif\x00\x00no tiff at all")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), smooth())
    assert image_size(tmp_path / "a.png", upright=True) == (6, 4)


@pytest.mark.parametrize("number", [2, 3, 6, 8])
def test_an_image_that_is_turned_is_refused_where_nobody_knows_whether_its_mask_is(tmp_path, number):
    folder = voc_tree(tmp_path)
    turned(folder / "JPEGImages" / "2007_train_1.jpg", number)
    dataset = VOC(folder, "train")
    for read in (dataset.image_size, dataset.read_image, dataset.read_labels):
        read(0)
        with pytest.raises(DataError, match=r"2007_train_1\.jpg is to be turned by its EXIF orientation.*`upright`"):
            read(1)
    turned(folder / "JPEGImages" / "2007_train_1.jpg", 1)
    assert dataset.image_size(1) == dataset.read_image(1).shape[:2] == (6, 4)


# too large ------------------------------------------------------------------------------------------------------------


def png(path, width: int, height: int, pixels: bytes) -> None:
    """Write a grey PNG whose header may promise other pixels than it holds."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")]
    parts = [struct.pack(">I4s", len(d), k) + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_a_mask_is_unpacked_no_further_than_its_header_promises(tmp_path):
    png(tmp_path / "bomb.png", 32, 32, bytes(200 << 20))
    tracemalloc.start()
    with contextlib.suppress(DataError):
        assert read_indices(tmp_path / "bomb.png").shape == (32, 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20


@pytest.mark.parametrize("read", [read_indices, read_rgb, read_photo, image_size])
def test_a_file_of_too_many_pixels_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, read):
    file = tmp_path / "large.png"
    png(file, 60_000, 60_000, bytes(1000))
    with pytest.raises(DataError, match=r"large\.png has more than the 178,956,970 pixels that are read\..*MAX_PIXELS"):
        read(file)
    png(file, 30, 20, bytes(31 * 20))
    monkeypatch.setenv("DENSECL_MAX_PIXELS", "599")
    with pytest.raises(DataError, match=r"has more than the 599 pixels that are read"):
        read(file)
    monkeypatch.setenv("DENSECL_MAX_PIXELS", "600")
    read(file)
    monkeypatch.setenv("DENSECL_MAX_PIXELS", "many")
    with pytest.raises(SettingError, match="DENSECL_MAX_PIXELS is 'many'"):
        read(file)


def test_more_pixels_than_pil_reads_are_read_when_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (30, 20)).save(tmp_path / "a.tif")
    assert read_rgb(tmp_path / "a.tif").shape == (20, 30, 3)


@pytest.mark.parametrize("read", [read_indices, read_rgb, image_size])
def test_memory_that_is_too_small_is_said_in_words(tmp_path, monkeypatch, read):
    Image.new("L", (4, 4)).save(tmp_path / "a.tif")

    def fail(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match=r"a\.tif does not fit into the memory\. make it smaller"):
        read(tmp_path / "a.tif")
