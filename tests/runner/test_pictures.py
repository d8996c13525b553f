"""Pictures of class-incremental runs show the run's own predictions, and change nothing."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from densecl.check.tiny import tiny_loop, tiny_scenario
from densecl.cli import main
from densecl.records.record import read_record
from densecl.runner import pictures
from densecl.runner.checkpoint import read_weights
from densecl.runner.methods import parse_method
from densecl.streams.samples import TestSamples
from tiny_runs import run_words

pytestmark = pytest.mark.usefixtures("one_thread")


def read(folder, name):
    return np.array(Image.open(folder / "pictures" / name))


def only_run(root):
    (path,) = root.rglob("result.json")
    return path.parent


# ---- which images


class Masks:
    """A reader of masks with given classes."""

    def __init__(self, classes):
        self.classes = classes

    def read_mask(self, index):
        return np.array([[0, 255, *self.classes[index]]], np.uint8)


def chosen(classes, indices=None, count=3):
    indices = np.arange(len(classes)) if indices is None else np.array(indices)
    samples = TestSamples(Masks(classes), indices, None, None)  # type: ignore[arg-type]
    found = pictures.choose(samples, count)
    assert found == sorted(set(found))
    return sorted(int(indices[position]) for position in found)


def test_the_images_show_as_many_classes_as_a_greedy_choice_can():
    rng = np.random.default_rng(0)
    classes = [sorted(set(rng.integers(1, 12, 3).tolist())) for _ in range(30)]
    found = chosen(classes)
    shown = set().union(*(classes[k] for k in found))
    best = max(len(set().union(*group)) for group in itertools.combinations(map(set, classes), 3))
    assert len(shown) >= (1 - 1 / np.e) * best  # what a greedy choice promises
    assert any(len(classes[k]) == max(map(len, classes)) for k in found)


def test_the_choice_follows_the_images_and_not_their_positions():
    classes = [[k % 5 + 1, k % 3 + 6] for k in range(20)]
    assert chosen(classes) == chosen(classes, indices=range(19, -1, -1))
    assert chosen([[], *classes[1:]], indices=range(1, 20)) == chosen([[], *classes[1:]])  # without the one of no class


def test_few_images_are_all_shown_and_images_without_classes_will_do():
    assert chosen([[1], [1]]) == [0, 1]
    assert len(chosen([[], [], [], []], count=2)) == 2


def test_no_more_masks_are_read_than_needed():
    class Counting(Masks):
        reads = 0

        def read_mask(self, index):
            self.reads += 1
            return super().read_mask(index)

    reader = Counting([[1]] * 1000)
    pictures.choose(TestSamples(reader, np.arange(1000), None, None))  # type: ignore[arg-type]
    assert reader.reads == pictures.CANDIDATES


# ---- tiles


def test_tiles_are_equal_and_smaller_images_lie_in_the_middle():
    shapes = [(320, 160), (40, 20), (10, 80)]
    assert pictures.tile_size(shapes) == (80, 160)
    labels = [np.full(shape, k + 1, np.uint8) for k, shape in enumerate(shapes)]
    row = pictures.tiles(labels, (80, 160), 255)
    assert row.shape == (160, 240)
    assert (row[:, :80] == 1).all()
    second = row[:, 80:160]
    assert (second[60:100, 30:50] == 2).all()
    assert (second == 2).sum() == 40 * 20
    assert set(np.unique(second)) == {2, 255}
    assert pictures.tile_size([(1, 5000)]) == (160, 1)
    images = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
    assert pictures.tiles(images, (80, 160), 255).shape == (160, 240, 3)


# ---- a run


def test_a_run_leaves_pictures_of_every_step(finished):
    folder = only_run(finished / "results")
    record = read_record(folder / "result.json")
    files = {path.name for path in (folder / "pictures").iterdir()}
    assert files == {"images.png", "truth.png", "step0.png", "step1.png", "pictures.json"}
    about = json.loads((folder / "pictures" / "pictures.json").read_text())
    assert about == {"indices": [0, 1, 2], "tile": [32, 32], "count": 3}
    data = finished / "data" / "VOCdevkit" / "VOC2012"
    names = [f"val_{k}" for k in range(3)]
    images = [np.array(Image.open(data / "JPEGImages" / f"{name}.jpg").convert("RGB")) for name in names]
    masks = [np.array(Image.open(data / "SegmentationClass" / f"{name}.png")) for name in names]
    assert np.array_equal(read(folder, "images.png"), np.concatenate(images, 1))
    truth = read(folder, "truth.png")
    assert np.array_equal(truth, np.concatenate(masks, 1))
    assert Image.open(folder / "pictures" / "truth.png").getpalette()[3:6] == [128, 0, 0]
    for step in (0, 1):  # all test images are shown whole, so the pictures hold the record's counts
        counted = np.zeros((21, 21), dtype=int)
        np.add.at(counted, (truth[truth != 255], read(folder, f"step{step}.png")[truth != 255]), 1)
        assert counted.tolist() == record.steps[step].evaluations[0].confusion


def test_pictures_change_no_number(finished, voc, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "keep", lambda *_: None)
    assert main(run_words(voc, tmp_path / "r", "--quiet")) == 0
    without, with_them = only_run(tmp_path / "r"), only_run(finished / "results")
    assert not (without / "pictures").exists()
    for step in (0, 1):
        one, other = (read_weights(folder, step, folder.name.partition("-")[2]) for folder in (without, with_them))
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)
    records = [read_record(folder / "result.json") for folder in (without, with_them)]
    assert records[0].hash == records[1].hash
    scores = [[step.evaluations for step in record.steps] for record in records]
    assert scores[0] == scores[1]


def test_a_run_that_goes_on_writes_what_is_missing(run_copy, finished, capsys):
    wanted = {name: read(run_copy, name) for name in ("truth.png", "step0.png", "step1.png")}
    record = json.loads((run_copy / "result.json").read_text())
    record.update(status="interrupted", steps=record["steps"][:1])
    (run_copy / "result.json").write_text(json.dumps(record))
    for name in ("weights/step1.safetensors", "checkpoints/step1-done.ckpt", "pictures/step1.png"):
        (run_copy / name).unlink()
    output = run_copy.parents[3]
    assert main(run_words(finished / "data", output, "--quiet")) == 0
    assert read_record(run_copy / "result.json").status == "finished"
    assert all(np.array_equal(read(run_copy, name), pixels) for name, pixels in wanted.items())


def test_joint_has_pictures_of_its_one_step_and_the_same_images(finished, voc, tmp_path):
    assert main(run_words(voc, tmp_path / "r", "--quiet", strategy="joint")) == 0
    folder, other = only_run(tmp_path / "r"), only_run(finished / "results")
    assert (folder / "pictures" / "step0.png").is_file()
    for name in ("images.png", "truth.png"):
        assert np.array_equal(read(folder, name), read(other, name))


# ---- in memory


def test_a_folder_that_cannot_be_written_is_said_and_ends_nothing(tmp_path):
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("finetune"), scenario)
    loop.enter(scenario.experiences[0])
    (tmp_path / "pictures").write_text("a file")
    said = []
    pictures.keep(loop, tmp_path, 0, said.append)
    assert len(said) == 1
    assert "no pictures of step 0" in said[0]
    assert str(tmp_path / "pictures") in said[0]


def test_what_is_no_fault_of_the_disk_is_not_hidden(tmp_path, monkeypatch):
    scenario = tiny_scenario()
    loop = tiny_loop(parse_method("finetune"), scenario)
    loop.enter(scenario.experiences[0])
    monkeypatch.setattr(loop.strategy, "predict", lambda output: output.nothing)
    with pytest.raises(AttributeError):
        pictures.keep(loop, tmp_path, 0, lambda _: None)


def test_a_stream_that_tells_the_step_shows_the_images_of_one_that_does_not():
    plain, told = tiny_scenario(), tiny_scenario(by_task=True)
    wanted, found = pictures.all_tests(plain), pictures.all_tests(told)
    assert wanted is plain.tests[0]
    assert pictures.choose(found) == pictures.choose(wanted)
    for position in range(len(wanted)):
        assert found[position].target.equal(wanted[position].target)


def test_a_method_that_is_told_the_step_answers_with_labels_of_learnt_steps(tmp_path):
    scenario = tiny_scenario(by_task=True)
    loop = tiny_loop(parse_method("scratch"), scenario)
    for experience in scenario.experiences:
        loop.enter(experience)
        loop.finish(experience)
        pictures.keep(loop, tmp_path, experience.step, print)
        learnt = {0, 255, *experience.seen_classes}
        assert set(np.unique(read(tmp_path, f"step{experience.step}.png")).tolist()) <= learnt
