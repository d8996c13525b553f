"""NYUv2's real files: three tasks on them, two short epochs each; skipped when `DENSECL_SHARED` has none."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densecl.cli import main
from densecl.data import open_dataset
from densecl.data.sets.nyuv2 import NAMES_13, NAMES_40, TO_13
from densecl.records.record import read_record

SHARED = Path(os.environ.get("DENSECL_SHARED") or Path(__file__).parents[3] / "shared") / "data"
MINI = SHARED / "nyuv2-mini"
pytestmark = pytest.mark.skipif(not MINI.is_dir(), reason="no real data here")


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DENSECL_DATA", str(SHARED))


def test_the_names_and_the_map_of_classes_are_those_of_the_files():
    lines = [line.split() for line in (MINI / "map_40_to_13.txt").read_text().splitlines()]
    assert [int(to) for _, to in lines] == list(TO_13)
    assert (MINI / "class_names_13.txt").read_text().split("\n")[1:14] == list(NAMES_13)
    names = (MINI / "class_names_40.txt").read_text().splitlines()[1:41]
    assert [name.replace("refridgerator", "refrigerator").replace("-", " ") for name in names] == list(NAMES_40)


def test_labels_of_13_classes_are_those_of_40_mapped():
    thirteen, forty = open_dataset("nyuv2", "test"), open_dataset("nyuv2(classes=40)", "test")
    assert (len(thirteen), len(open_dataset("nyuv2", "train"))) == (108, 196)
    table = np.array([*TO_13, *[255] * 215])
    table[0] = 255
    for i in (0, 50, 107):
        assert np.array_equal(thirteen.read(i).mask.numpy(), table[forty.read(i).mask.numpy()])


def test_floors_lie_below_and_look_up():
    reader = open_dataset("nyuv2(classes=40)", "test")
    depth, normals = reader.of("depth"), reader.of("normals")
    looks = []
    for i in range(0, 108, 6):
        floor = reader.read(i).mask == 2
        assert 0.5 < depth.read(i).mask.min() <= depth.read(i).mask.max() < 10
        looks += normals.read(i).mask[:, floor].T.tolist()
    right, up, viewer = np.median(looks, 0)
    assert up > 0.8
    assert abs(right) < 0.15
    assert viewer > 0


def test_three_tasks_are_learnt_on_real_rooms(tmp_path):
    words = ["run", "-b", "nyuv2-3tasks", "-s", "finetune", "--output", str(tmp_path), "--device", "cpu", "--quiet"]
    words += ["--backbone", "unet(width=4,depth=3,norm=batch)", "--data", str(MINI)]
    for assignment in (
        "training.epochs=2", "training.batch=16", "training.crop=(48,64)", "evaluation.size=(48,64)",
        "training.lr=0.005", "training.later.lr=0.005",
    ):  # fmt: skip
        words += ["--set", assignment]
    assert main(words) == 0
    path = next(tmp_path.rglob("result.json"))
    record = read_record(path)
    assert [task.primary for task in record.tasks] == ["miou", "absolute", "angle"]
    assert [step.iterations for step in record.steps] == [10, 8, 8]  # of 66, 65 and 65 images
    labels, depth, normals = (evaluation.metrics for evaluation in record.steps[2].evaluations)
    assert labels["miou"]["all"] > 0
    assert 0 < depth["delta1"] < depth["delta3"] < 1
    assert 0 < normals["within_11.25"] < normals["within_30"] < 1
    assert normals["angle"] < 60
    for name in ("segmentation", "depth", "normals"):
        picture = np.asarray(Image.open(path.parent / "pictures" / f"step2-{name}.png"))
        assert picture.shape == (4 * 48, 3 * 64, 3)
    photo, made = sorted((MINI / "test" / "rgb").iterdir())[0], tmp_path / "made"
    assert main(["predict", str(path.parent), str(photo), "--task", "depth", "--output", str(made)]) == 0
    assert np.asarray(Image.open(made / f"{photo.stem}.depth.png")).shape == (192, 256, 3)
