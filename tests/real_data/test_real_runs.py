"""Whole runs on real files, a few iterations a step; skipped when `DENSECL_SHARED` has no data."""

import os
from pathlib import Path

import numpy as np
import pytest

from densecl.cli import main
from densecl.data import open_dataset
from densecl.records.record import read_record
from tiny_runs import BACKBONE, flags

SHARED = Path(os.environ.get("DENSECL_SHARED") or Path(__file__).parents[3] / "shared") / "data"
pytestmark = [
    pytest.mark.skipif(not (SHARED / "voc-mini").is_dir(), reason="no real data here"),
    pytest.mark.usefixtures("one_thread"),
]
TINY = ("training.iterations=2", "training.batch=4", "training.crop=32", "evaluation.size=32", "evaluation.batch=64")


@pytest.fixture(autouse=True)
def _environment(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "real-cache"))  # one index for all
    monkeypatch.setenv("DENSECL_DATA", str(SHARED))


def words(benchmark, strategy, output):
    found = ["run", "-b", benchmark, "-s", strategy, "--backbone", BACKBONE, "--output", str(output), "--device", "cpu"]
    return [*found, "--quiet", *flags(*TINY)]


@pytest.mark.parametrize(
    ("benchmark", "strategy", "data", "classes", "steps"),
    [("voc15-5s", "mib", "voc", 20, 6), ("voc15-5", "joint", "voc", 20, 1), ("camvid6-1", "lwf", "camvid", 11, 6)],
)
def test_a_run_on_real_files_scores_every_labelled_pixel(tmp_path, capsys, benchmark, strategy, data, classes, steps):
    assert main(words(benchmark, strategy, tmp_path)) == 0
    (path,) = tmp_path.rglob("result.json")
    record = read_record(path)
    assert record.status == "finished"
    assert len(record.steps) == steps
    assert len(record.planned_steps) == (2 if benchmark.endswith("15-5") else 6)
    test = open_dataset(data, "test")
    for step in record.steps:
        matrix = np.array(step.evaluations[0].confusion)
        assert matrix.shape == (classes + 1, classes + 1)
        assert 0.5 * len(test) * 32 * 32 < matrix.sum() <= len(test) * 32 * 32
        assert matrix[1:].sum(axis=1).all()  # every class occurs in the test images, seen or not
    assert main(["table", str(tmp_path)]) == 0
    assert strategy in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["overlapped", "disjoint", "sequential"])
def test_the_plan_of_the_full_recipe_on_a_voc_tree(tmp_path, capsys, setting):
    plan = ["run", "-b", "voc15-5s", "-s", "mib", "--backbone", "bisenet(encoder=resnet18)", "--dry-run"]
    more = ["--output", str(tmp_path), "--device", "cpu", *flags("training.crop=64", "evaluation.size=64")]
    assert main([*plan, *more, "--set", f"stream.setting={setting}"]) == 0
    out = capsys.readouterr().out
    assert "886 train, 401 test" in out
    rows = [line.split() for line in out.splitlines() if line[:4].strip().isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert [row[2] for row in rows] == ["30"] * 6
    assert list(tmp_path.iterdir()) == []
