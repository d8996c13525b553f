"""One grid of pictures: the same images for all rows, the truth on top, labels over the photographs."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from densecl.palette import palette
from densecl.records.record import find_records
from densecl.report.album import Album
from densecl.report.gather import benchmarks
from densecl.report.page import render
from densecl.report.pictures import kept_pictures, picture_grid
from report_runs import committed


def with_pictures(folder, photo, truth, maps, count=3):
    place = folder / "pictures"
    place.mkdir()
    Image.fromarray(photo).save(place / "images.png")
    for name, labels in (("truth", truth), *((f"step{k}", labels) for k, labels in maps.items())):
        image = Image.fromarray(labels)
        image.putpalette(palette())
        image.save(place / f"{name}.png")
    (place / "pictures.json").write_text(json.dumps({"count": count, "tile": [8, 8]}))


@pytest.fixture
def folder(tmp_path):
    """Three rows with pictures, two of them of the same images."""
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (8, 24, 3), np.uint8) for _ in range(2)]
    truth = rng.integers(0, 4, (8, 24)).astype(np.uint8)
    truth[0, 0] = 255
    for index, shown in ((0, 0), (5, 0), (10, 1)):
        run = committed(tmp_path, index, strategy=f"method{index}")
        with_pictures(run, photos[shown], truth, {0: truth, 5: np.roll(truth, index, 1)})
    return tmp_path


def grid_of(folder):
    (benchmark,) = benchmarks(find_records(folder)[0])
    album = Album()
    return picture_grid(kept_pictures(benchmark, pytest.fail), album), album


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.source.split(",")[1]))).convert("RGBA"))


def test_rows_have_the_same_images_the_truth_first_and_their_last_step(folder):
    grid, _ = grid_of(folder)
    assert [line.title for line in grid.lines[:2]] == ["photographs", "truth"]
    assert {line.member.row.strategy for line in grid.lines[2:]} == {"method0", "method5"}
    assert grid.elsewhere == 1
    assert grid.count == 3
    assert all("after step 5" in line.alt for line in grid.lines[2:])


def test_background_and_void_let_the_photograph_through_and_classes_have_their_colour(folder):
    grid, _ = grid_of(folder)
    truth = np.asarray(Image.open(next(folder.rglob("truth.png"))))
    colours = np.frombuffer(palette(), np.uint8).reshape(256, 3)
    for line, shift in ((grid.lines[1], 0), *((line, int(line.member.row.strategy[6:])) for line in grid.lines[2:])):
        labels = np.roll(truth, shift, 1)
        shown = pixels(line.labels)
        assert ((shown[..., 3] == 0) == np.isin(labels, (0, 255))).all()
        painted = shown[..., 3] == 255
        assert (shown[painted][:, :3] == colours[labels[painted]]).all()
    assert [name for name, _ in grid.legend] == ["red ring", "green disc", "blue disc"]


def test_the_page_shows_the_grid_and_a_strip_for_each_row(folder):
    text, notes = render(find_records(folder)[0], source="r")
    assert notes == []
    assert text.count('class="tiles"') == 1
    assert "--count:3" in text
    assert "1 row with pictures of other images is not here" in text
    assert text.count('<details class="strip"') == 3


@pytest.mark.parametrize("about", ["", "[]", '{"count": 0}', '{"count": 7}', '{"count": true}', '{"count": "3"}'])
def test_a_number_of_images_that_does_not_fit_is_estimated(folder, about):
    for path in folder.rglob("pictures.json"):
        path.write_text(about)
    grid, _ = grid_of(folder)
    assert grid.count == 3


def test_runs_without_a_photograph_or_a_truth_have_no_grid(folder):
    for path in folder.rglob("images.png"):
        path.unlink()
    assert grid_of(folder)[0] is None
    for path in folder.rglob("truth.png"):
        path.unlink()
    (benchmark,) = benchmarks(find_records(folder)[0])
    assert kept_pictures(benchmark, pytest.fail) == []


def test_a_full_page_has_no_grid_and_says_how_many_pictures_it_lacks(folder):
    (benchmark,) = benchmarks(find_records(folder)[0])
    album = Album(limit=10)
    assert picture_grid(kept_pictures(benchmark, pytest.fail), album) is None
    assert album.left_out > 0
