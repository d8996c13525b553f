"""Predictions on images of any kind are those of the run's evaluation, and bad input ends in one line."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import densecl
from data_trees import few_drawn
from densecl.check.tiny import tiny_loop, tiny_scenario
from densecl.cli import main
from densecl.data.decode import find_photos, read_photo
from densecl.errors import DataError
from densecl.finished import predict as predictor
from densecl.finished.overlay import outline, overlay, percent, shares
from densecl.finished.predict import unique_names
from densecl.models.network import Output
from densecl.records.record import read_record
from densecl.runner.methods import parse_method
from tiny_runs import refused, run_words

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def alone(run_copy, monkeypatch):
    """A finished run without its data set."""
    path = run_copy / "result.json"
    record = json.loads(path.read_text())
    record["settings"]["data"]["root"] = "/nowhere"
    path.write_text(json.dumps(record))
    monkeypatch.delenv("DENSECL_DATA", raising=False)
    return run_copy


@pytest.fixture
def photo(tmp_path):
    """A photograph of 50x40 pixels."""
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


# ---- the numbers


@pytest.mark.parametrize("step", [0, 1])
def test_predictions_of_the_test_images_give_the_recorded_confusion(alone, finished, step):
    folder = finished / "data" / "VOCdevkit" / "VOC2012"
    counted = np.zeros((21, 21), dtype=int)
    for prediction in densecl.predict(alone, sorted((folder / "JPEGImages").glob("val_*.jpg")), step=step):
        truth = np.array(Image.open(folder / "SegmentationClass" / f"{prediction.source.stem}.png"))
        known = truth != 255
        np.add.at(counted, (truth[known], prediction.pixels[known]), 1)
        assert prediction.files == ()
    assert counted.tolist() == read_record(alone / "result.json").steps[step].evaluations[0].confusion


def test_shares_are_counted_and_a_little_is_not_nothing():
    labels = np.array([[3, 3, 3], [0, 3, 0]], dtype=np.uint8)
    assert shares(labels) == pytest.approx({3: 4 / 6, 0: 2 / 6})
    assert list(shares(labels)) == [3, 0]
    assert [percent(share) for share in (1.0, 0.3414, 0.0004, 0.0006)] == ["100.0 %", "34.1 %", "< 0.1 %", "0.1 %"]


@pytest.mark.parametrize(
    ("height", "width", "size", "seen"),
    [
        (375, 500, 512, (512, 682)),  # 682.67, rounded down as the evaluation does
        (500, 375, 512, (682, 512)),
        (375, 500, "full", (375, 500)),
        (1, 1, "full", (32, 32)),
        (1, 1, 512, (512, 512)),
        (48, 48, 48, (48, 48)),
        (1024, 2048, "full", (1024, 2048)),
        (3, 2000, 100, (56, 8192)),
    ],
)
def test_a_network_sees_an_image_as_its_evaluation_would(height, width, size, seen):
    assert predictor.seen_size(height, width, size) == seen


@pytest.mark.parametrize(("height", "width"), [(4000, 6000), (100_000, 2), (9000, 9000), (1, 10**7)])
@pytest.mark.parametrize("size", ["full", 512])
def test_no_image_is_too_large(height, width, size):
    seen = predictor.seen_size(height, width, size)
    assert min(seen) >= predictor.LEAST
    assert seen[0] * seen[1] <= max(predictor.LARGEST, predictor.LEAST * predictor.LONGEST)


@pytest.mark.parametrize("size", [(37, 53), (11, 13), (300, 13)])
def test_bands_of_logits_are_those_of_the_whole(size):
    logits = torch.randn(1, 5, 11, 13, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=False)
    parts = [predictor.band(logits, size, top, min(top + 7, size[0])) for top in range(0, size[0], 7)]
    torch.testing.assert_close(torch.cat(parts, 2).double(), whole, atol=1e-4, rtol=1e-4)


def test_labels_do_not_depend_on_the_bands(monkeypatch):
    loop = tiny_loop(parse_method("finetune"), tiny_scenario())
    output = Output(torch.randn(1, 5, 12, 9, generator=torch.Generator().manual_seed(0)))
    whole = predictor.labels_of(loop, output, (50, 70))
    monkeypatch.setattr(predictor, "BAND", 5 * 70 * 3)
    banded = predictor.labels_of(loop, output, (50, 70))
    assert whole.shape == banded.shape == (50, 70)
    assert (whole != banded).mean() < 0.001  # rounding, where two classes are equal
    assert len(np.unique(whole)) == 5


# ---- what is written


def test_masks_are_palette_pngs_of_the_images_size_and_overlays_have_a_legend(alone, photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(alone), str(photo), "-o", str(out)]) == 0
    line = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["photo.mask.png", "photo.overlay.png"]
    mask, drawn = Image.open(out / "photo.mask.png"), Image.open(out / "photo.overlay.png")
    assert mask.mode == "P"
    assert mask.size == (50, 40)
    assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert mask.getpalette()[45:48] == [192, 128, 128]  # person, as VOC has it
    (again,) = densecl.predict(alone, photo)
    assert np.array_equal(np.array(mask), again.pixels)
    names = read_record(alone / "result.json").class_names
    assert set(again.shares) == {names[label] for label in np.unique(again.pixels)}
    assert all(name in line for name in again.shares)
    assert drawn.size[0] == 7 * 50  # enlarged by a whole factor to at least 320 pixels
    assert drawn.size[1] > 7 * 40


def test_an_overlay_leaves_background_and_tints_classes():
    pixels = np.full((400, 400, 3), 100, np.uint8)
    labels = np.zeros((400, 400), np.uint8)
    labels[100:300, 100:300] = 2  # (0, 128, 0)
    drawn = np.array(overlay(pixels, labels, ["nothing", "a", "b"]))
    assert drawn[50, 50].tolist() == [100, 100, 100]
    assert np.abs(drawn[200, 200] - np.array([45, 115, 45])).max() <= 1  # 0.45 of 100, and 0.55 of the colour
    assert drawn[100, 200].tolist() == [0, 128, 0]
    assert drawn.shape[0] > 400
    assert drawn.shape[1] == 400
    assert outline(np.array([[1, 1, 2], [1, 1, 2]])).tolist() == [[False, True, True]] * 2


def test_long_legends_are_broken_and_none_is_cut():
    labels = np.arange(200, dtype=np.uint8).repeat(2).reshape(1, 400).repeat(4, 0)
    drawn = overlay(np.zeros((4, 400, 3), np.uint8), labels, [f"class number {k}" for k in range(200)])
    assert drawn.height > 100 * 12
    wide = overlay(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8), ["a very long name " * 9])
    assert np.array(wide)[:, -3:].min() == 255  # nothing reaches the margin


def test_files_of_one_stem_do_not_overwrite_each_other(alone, photo, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(photo, tmp_path / folder / "cat.png")
    assert main(["predict", str(alone), str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "o"), "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert {path.name for path in (tmp_path / "o").glob("*.mask.png")} == {"cat.mask.png", "cat-2.mask.png"}


def test_names_are_unique_whatever_the_files_are_called(tmp_path):
    files = [tmp_path / name for name in ("cat.png", "cat-2.png", "b/cat.jpg", "c/CAT.jpg", "dog.a.png")]
    names = unique_names(files)
    assert names == ["cat", "cat-2", "cat-3", "CAT-4", "dog.a"]
    assert len({name.casefold() for name in names}) == len(names)


def test_a_folder_is_its_images_once_and_no_deeper(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "below/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_photos([tmp_path, tmp_path / "a.png"])] == ["a.png", "b.JPG"]


# ---- images of every kind


def square(height=6, width=4):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_colours_are_kept_and_palettes_and_greys_are_expanded(tmp_path):
    pixels = square()
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    assert np.array_equal(read_photo(tmp_path / "rgb.png").pixels, pixels)
    grey = pixels[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_photo(tmp_path / "grey.png").pixels, grey[..., None].repeat(3, 2))
    indexed = Image.fromarray(grey % 2)
    indexed.putpalette([10, 20, 30, 200, 210, 220])
    indexed.save(tmp_path / "palette.png")
    assert np.array_equal(
        read_photo(tmp_path / "palette.png").pixels, np.array([[10, 20, 30], [200, 210, 220]])[grey % 2]
    )


def test_what_is_transparent_lies_over_white(tmp_path):
    pixels = np.concatenate([square(), np.full((6, 4, 1), 64, np.uint8)], 2)
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    wanted = pixels[..., :3] * (pixels[..., 3:] / 255.0) + 255 * (1 - pixels[..., 3:] / 255.0)
    found = read_photo(tmp_path / "alpha.png").pixels
    assert np.abs(found - wanted).max() <= 1
    assert found[0, 0].tolist() == [255, 255, 255]


def test_16_bits_are_scaled_and_not_cut_off(tmp_path):
    values = np.array([[0, 128, 257], [32768, 65407, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    found = read_photo(tmp_path / "deep.png").pixels[..., 0]
    assert found.tolist() == [[0, 0, 1], [128, 255, 255]]  # v / 257, rounded


def test_a_turned_jpeg_stands_upright(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :8] = 255  # bright on the left
    tag = Image.Exif()
    tag[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=tag, quality=100)
    found = read_photo(tmp_path / "turned.jpg").pixels
    assert found.shape == (32, 16, 3)
    assert found[:6].min() > 240
    assert found[10:].max() < 15


def test_the_first_frame_of_an_animation_is_taken_and_said(alone, tmp_path, capsys):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    found = read_photo(tmp_path / "clip.gif")
    assert found.note == "first of 3 frames"
    assert np.abs(found.pixels - np.array([255, 0, 0])).max() < 8
    assert main(["predict", str(alone), str(tmp_path / "clip.gif"), "-o", str(tmp_path / "o")]) == 0
    assert "clip.gif (first of 3 frames): " in capsys.readouterr().out


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_images_of_one_pixel_work(alone, tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "small.png")
    (found,) = densecl.predict(alone, tmp_path / "small.png", tmp_path / "o", size="full")
    assert found.pixels.shape == size[::-1]
    assert Image.open(tmp_path / "o" / "small.mask.png").size == size


@pytest.mark.parametrize("content", [b"", b"hello", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"0" * 50, None])
def test_a_broken_image_is_named_and_nothing_is_written(alone, photo, tmp_path, capsys, content):
    path = tmp_path / "broken.png"
    path.write_bytes(photo.read_bytes()[:2000] if content is None else content)
    refused(capsys, ["predict", alone, photo, path, "-o", tmp_path / "o"], path, "cannot be read")
    assert not (tmp_path / "o").exists()


def test_values_that_are_no_colours_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32) * 0.5).save(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 10**6, np.int32)).save(tmp_path / "int.tif")
    for name in ("float.tif", "int.tif"):
        with pytest.raises(DataError, match=rf"{name}.*8 or 16 bits"):
            read_photo(tmp_path / name)


# ---- bad input


def test_bad_input_is_refused_in_one_line(alone, photo, tmp_path, capsys):
    out = ["-o", tmp_path / "o"]
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(capsys, ["predict", alone, tmp_path / "absent.png", *out], "absent.png is missing")
    refused(capsys, ["predict", alone, empty, *out], f"{empty} holds no image")
    refused(capsys, ["predict", tmp_path, photo, *out], tmp_path, "result.json")
    refused(capsys, ["predict", alone, photo, "--step", "5", *out], "finished steps 0 to 1, not 5")
    refused(capsys, ["predict", alone, photo, "--task", "voc", *out], "no task 'voc'", "--step")
    refused(capsys, ["predict", alone, photo, "--size", "big", *out], "'big'", "full")
    refused(capsys, ["predict", alone, photo, "--device", "gpu", *out], "no device 'gpu'")
    refused(capsys, ["predict", alone, photo, "-o", photo], "cannot write", photo)
    assert not (tmp_path / "o").exists()


def test_weights_that_are_gone_are_named_with_those_that_are_there(alone, photo, tmp_path, capsys):
    (alone / "weights" / "step1.safetensors").unlink()
    refused(capsys, ["predict", alone, photo, "-o", tmp_path / "o"], "no weights of step 1", "--step 0")
    assert len(densecl.predict(alone, photo, step=0)) == 1
    (alone / "weights" / "step0.safetensors").write_bytes(b"nothing")
    refused(capsys, ["predict", alone, photo, "--step", "0", "-o", tmp_path / "o"], "step0.safetensors", "damaged")


def test_an_image_is_never_written_over(alone, photo, tmp_path, capsys):
    other = tmp_path / "photo.mask.png"
    shutil.copy(photo, other)
    before = other.read_bytes()
    refused(capsys, ["predict", alone, photo, other, "-o", tmp_path], other, "overwritten")
    assert other.read_bytes() == before


def test_runs_of_every_kind_predict(voc, tmp_path, photo, capsys):
    for strategy in ("joint", "lwf+si+replay"):
        assert main(run_words(voc, tmp_path / "r", "--quiet", benchmark="voc15-5s", strategy=strategy)) == 0
    capsys.readouterr()
    for path in (tmp_path / "r").rglob("result.json"):
        (found,) = densecl.predict(path.parent, photo)
        assert found.names == tuple(read_record(path).class_names)


def test_a_method_that_is_told_the_step_predicts_that_steps_classes(voc, tmp_path, photo, capsys):
    words = run_words(voc, tmp_path / "r", "--quiet", strategy="scratch")
    assert main(words) == 0
    (folder,) = (path.parent for path in (tmp_path / "r").rglob("result.json"))
    capsys.readouterr()
    allowed = {"step0": set(range(16)), "step1": {0, *range(16, 21)}}
    for task, labels in allowed.items():
        (found,) = densecl.predict(folder, photo, task=task)
        assert set(np.unique(found.pixels).tolist()) <= labels
    refused(capsys, ["predict", folder, photo, "--task", "step7", "-o", tmp_path / "o"], "'step7'", "step0, step1")


# ---- sequences of tasks


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    """The folder of a run of five tasks."""
    root = tmp_path_factory.mktemp("sequence")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DENSECL_CACHE", str(root / "cache"))
        few_drawn(patch, 8, 4, 4)
        words = ["run", "-b", "shapes-5tasks", "-s", "piggyback", "--backbone", "unet(width=4,depth=2)", "--quiet"]
        words += ["--device", "cpu", "--set", "training.iterations=1", "--set", "training.batch=4"]
        assert main([*words, "--output", str(root / "o")]) == 0
    return next((root / "o").rglob("result.json")).parent


def test_every_task_of_a_sequence_predicts_what_its_picture_shows(sequence, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "none"))
    record = read_record(sequence / "result.json")
    kinds = {task.name: task.kind for task in record.tasks}
    assert set(kinds.values()) == {"segmentation", "colorization", "style_transfer"}
    for name, kind in kinds.items():
        shown = np.array(Image.open(sequence / "pictures" / f"step4-{name}.png"))[:48]  # input, output, truth
        image = shown[:, 96:] if kind == "colorization" else shown[:, :48]
        Image.fromarray(image).save(tmp_path / "image.png")
        (found,) = densecl.predict(sequence, tmp_path / "image.png", tmp_path / "o", task=name)
        made = np.array(Image.open(found.files[0]).convert("RGB"))
        assert np.array_equal(made, shown[:, 48:96]), name
        assert found.files[0].name == ("image.mask.png" if kind == "segmentation" else f"image.{name}.png")
    assert not (tmp_path / "none").exists()  # no data was drawn


def test_the_task_is_by_default_the_last_and_must_have_been_learnt(sequence, photo, tmp_path, capsys):
    last = read_record(sequence / "result.json").tasks[-1].name
    (found,) = densecl.predict(sequence, photo)
    (named,) = densecl.predict(sequence, photo, task=last)
    assert found.pixels.shape == (40, 50, 3)
    assert np.array_equal(found.pixels, named.pixels)
    words = ["predict", sequence, photo, "--step", "1", "--task", last, "-o", tmp_path / "o"]
    refused(capsys, words, f"'{last}'", "not learnt by step 1")
