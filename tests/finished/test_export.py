"""A run's label maps, scored as those of another code, give its own matrices to the last pixel."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from densecl.cli import main
from densecl.records.record import read_record
from tiny_runs import refused, run_words

pytestmark = pytest.mark.usefixtures("one_thread")


def evaluations(folder):
    (path,) = folder.rglob("result.json")
    return [step.evaluations for step in read_record(path).steps], path.parent


def again(run, tmp_path, capsys, data, *more):
    """Export a run, and score it by the command that export says."""
    capsys.readouterr()
    assert main(["export", str(run), "--predictions", str(tmp_path / "maps"), *more]) == 0
    command = re.search(r"score them: densecl (.*)", capsys.readouterr().out)[1]
    own = ["--data", str(data), "--output", str(tmp_path / "foreign")]
    assert main([*shlex.split(command), *own]) == 0
    return evaluations(tmp_path / "foreign")[0]


def test_every_step_has_the_runs_own_scores(run_copy, finished, tmp_path, capsys):
    recorded, run = evaluations(run_copy)
    assert again(run, tmp_path, capsys, finished / "data") == recorded
    (path,) = (tmp_path / "foreign").rglob("result.json")
    record = read_record(path)
    assert (record.strategy, record.seed, record.foreign.declared.checkpoint) == ("mib", 0, "last")
    assert record.settings["training"]["lr"] == 0.03


def test_order_crop_and_seen_images_change_nothing(voc, tmp_path, capsys):
    more = ["--set", "stream.order=7", "--set", "evaluation.size=20", "--set", "evaluation.images=seen"]
    assert main(run_words(voc, tmp_path / "results", "--quiet", *more, strategy="finetune")) == 0
    recorded, run = evaluations(tmp_path / "results")
    for ids in ("data", "stream"):
        assert again(run, tmp_path / ids, capsys, voc, "--ids", ids) == recorded


def test_maps_are_grey_in_the_evaluated_size_and_the_folder_is_whole_or_absent(run_copy, tmp_path, capsys):
    maps = tmp_path / "maps"
    maps.mkdir()
    assert main(["export", str(run_copy), "--predictions", str(maps), "--step", "1"]) == 0
    assert sorted(path.relative_to(maps).as_posix() for path in maps.rglob("*.*")) == [
        "about.toml",
        *(f"step1/val_{k}.png" for k in range(3)),
    ]
    image = Image.open(maps / "step1" / "val_0.png")
    assert (image.mode, image.size) == ("L", (32, 32))
    assert np.array(image).max() <= 20
    capsys.readouterr()
    refused(capsys, ["export", run_copy, "--predictions", maps], f"{maps} exists")
    (run_copy / "weights" / "step1.safetensors").unlink()
    refused(capsys, ["export", run_copy, "--predictions", tmp_path / "other"], "weights")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "results"]


def test_a_method_that_is_told_the_step_has_no_single_map(run_copy, tmp_path, capsys):
    record = json.loads((run_copy / "result.json").read_text())
    record["settings"] |= {"strategy": "scratch", "strategy_values": {}}
    (run_copy / "result.json").write_text(json.dumps(record))
    refused(capsys, ["export", run_copy, "--predictions", tmp_path / "maps"], "told the step")
