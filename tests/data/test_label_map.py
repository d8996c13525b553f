"""Label maps of other programs: what is certainly ids is read, all else is refused."""

import numpy as np
import pytest
from PIL import Image

from densecl.data.label_map import read_label_map
from densecl.errors import DataError
from densecl.palette import palette

IDS = np.array([[0, 1, 2], [20, 15, 0]], np.uint8)


def with_palette(path, colours):
    image = Image.fromarray(IDS)
    image.putpalette(colours)
    image.save(path)
    return path


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(IDS),
        Image.fromarray(IDS.astype(np.uint16)),
        Image.fromarray(IDS.astype(np.uint16) + 1000),
    ],
)
def test_grey_values_of_8_and_16_bits_are_ids(tmp_path, image):
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_label_map(tmp_path / "a.png"), np.asarray(image))


def test_a_palette_of_known_colours_in_their_order_holds_ids(tmp_path):
    for colours in (palette(), bytes(k for k in range(256) for _ in range(3))):
        assert np.array_equal(read_label_map(with_palette(tmp_path / "a.png", colours)), IDS)


def test_a_palette_in_another_order_is_taken_only_if_indices_are_asked_for(tmp_path):
    """A colour picture made smaller to its few colours: VOC's, but by frequency."""
    voc = np.frombuffer(palette(), np.uint8).reshape(256, 3)
    coloured = Image.fromarray(voc[IDS]).convert("P", palette=Image.Palette.ADAPTIVE)
    coloured.save(tmp_path / "a.png")
    with pytest.raises(DataError, match="palette of its own"):
        read_label_map(tmp_path / "a.png")
    assert read_label_map(tmp_path / "a.png", any_palette=True).max() < 5


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_other_kinds_of_images_are_refused(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=f"kind ({mode}|stretched grey), not of class ids"):
        read_label_map(tmp_path / "a.png")


def test_grey_of_fewer_bits_and_other_formats_are_refused(tmp_path):
    Image.fromarray(IDS % 4).save(tmp_path / "a.png", bits=2)
    with pytest.raises(DataError, match="stretched grey"):
        read_label_map(tmp_path / "a.png")
    Image.fromarray(IDS).save(tmp_path / "b.png", format="BMP")
    with pytest.raises(DataError, match="is a BMP"):
        read_label_map(tmp_path / "b.png")
