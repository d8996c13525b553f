"""What `densecl inspect` shows is what the record holds, in 80 columns."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

from densecl.cli import main
from densecl.errors import RecordError
from densecl.finished.inspect_run import confusions, describe_run, files_of
from densecl.finished.trusted import read_run
from densecl.records.record import read_record

COMMITTED = Path(__file__).parents[2] / "results" / "embedded"


def block(text, title):
    """The lines below a title, up to the next empty one."""
    lines = text.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(title)) + 1
    end = next((k for k in range(start, len(lines)) if not lines[k]), len(lines))
    return lines[start:end]


def changed(folder, **values):
    record = json.loads((folder / "result.json").read_text())
    record.update(values)
    (folder / "result.json").write_text(json.dumps(record))


def test_confusion_pairs_are_shares_of_the_true_class():
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 50, (6, 6))
    matrix[4] = 0  # a class that does not occur
    found = confusions(matrix.tolist(), [0, 1, 2, 4], count=100)
    normalised = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    wanted = {(t, p): normalised[t, p] for t in (0, 1, 2) for p in range(6) if p != t and matrix[t, p]}
    assert {(pair.true, pair.predicted): pair.share for pair in found} == pytest.approx(wanted)
    assert [pair.share for pair in found] == sorted((pair.share for pair in found), reverse=True)
    assert all(pair.pixels == matrix[pair.true, pair.predicted] for pair in found)
    assert confusions(matrix.tolist(), [0, 1, 2, 4], count=2) == found[:2]


def test_a_run_on_one_screen(run_copy, capsys):
    assert main(["inspect", str(run_copy)]) == 0
    text = capsys.readouterr().out
    record = read_record(run_copy / "result.json")
    assert text.startswith(f"voc15-5  mib  bisenet  seed 0  {record.hash}  finished\n")
    assert "\033" not in text
    settings = " ".join(" ".join(block(text, "settings")).split())
    assert "strategy distillation=10.0" in settings
    assert "iterations=4, later.lr=" in settings
    steps = [line.split() for line in block(text, "steps")[1:]]
    assert [line[:3] for line in steps] == [["0", "1-15", "4"], ["1", "16-20", "4"]]
    classes = block(text, "IoU of each class")[1:]
    for k, line in enumerate(classes):
        assert line.split()[:2] == [str(k), record.class_names[k]]
        values = [step.evaluations[0].metrics["iou"][k] for step in record.steps]
        assert line.split()[2:] == ["-" if value is None else f"{100 * value:.1f}" for value in values]
    pairs = block(text, "taken for another class, after step 1")[1:]
    matrix = np.array(record.steps[1].evaluations[0].confusion)
    true, predicted, share, _, pixels = pairs[0].split()
    row = matrix[record.class_names.index(true)]
    assert int(pixels.replace(",", "")) == row[record.class_names.index(predicted)]
    assert float(share) == pytest.approx(100 * int(pixels.replace(",", "")) / row.sum(), abs=0.05)
    files = {line.split()[0] for line in block(text, "files in")[1:]}
    assert {"result.json", "weights/step1.safetensors", "pictures/truth.png"} <= files


def test_classes_not_learnt_yet_are_not_said_to_be_confused(run_copy, capsys):
    record = json.loads((run_copy / "result.json").read_text())
    changed(run_copy, steps=record["steps"][:1], status="interrupted")
    assert main(["inspect", str(run_copy)]) == 0
    text = capsys.readouterr().out
    assert "interrupted  1 of 2 steps" in text.splitlines()[0]
    later = set(record["class_names"][16:])
    assert not later & {line.split()[0] for line in block(text, "taken for another class, after step 0")[1:]}


def test_every_line_fits_80_columns_however_many_steps(run_copy):
    record = json.loads((run_copy / "result.json").read_text())
    scores = {**record["steps"][1]["evaluations"][0], "confusion": None}
    own = {"evaluations": [scores]}
    steps = [{**record["steps"][1], **own, "step": k, "shared": k == 0} for k in range(25)]
    changed(run_copy, steps=steps, planned_steps=[])
    text = describe_run(run_copy)
    assert all(cell_len(line) <= 80 or line.startswith("files in") for line in text.splitlines())
    shown = [int(k) for line in text.splitlines() if re.match(r" +class( +\d+)+$", line) for k in line.split()[1:]]
    assert shown == list(range(25))
    assert "* loaded: another run" in text
    assert "\033[" in describe_run(run_copy, width=120, colour=True)


def test_of_many_files_each_folder_is_one_line(tmp_path):
    for k in range(30):
        (tmp_path / "weights").mkdir(exist_ok=True)
        (tmp_path / "weights" / f"step{k}.safetensors").write_bytes(b"x" * 10)
    (tmp_path / "result.json").write_bytes(b"yy")
    assert len(files_of(tmp_path)) == 31
    assert [tuple(part) for part in files_of(tmp_path, limit=20)] == [("result.json", 1, 2), ("weights/", 30, 300)]


@pytest.mark.skipif(not COMMITTED.is_dir(), reason="no committed records here")
def test_committed_records_can_be_looked_into():
    paths = sorted(COMMITTED.rglob("result.json"))
    assert paths
    for path in paths[:: max(1, len(paths) // 6)]:
        record = read_record(path)
        text = describe_run(path.parent)
        assert text.startswith(record.benchmark)
        assert all(cell_len(line) <= 80 or line.startswith("files in") for line in text.splitlines())


def test_records_without_steps_or_confusion_can_be_looked_into(run_copy):
    record = json.loads((run_copy / "result.json").read_text())
    for step in record["steps"]:
        del step["evaluations"][0]["confusion"]
    changed(run_copy, steps=record["steps"])
    assert "taken for" not in describe_run(run_copy)
    changed(run_copy, steps=[], status="failed", planned_steps=[])
    assert "failed" in describe_run(run_copy)


def test_a_folder_that_is_no_run_is_refused_and_a_run_below_is_named(run_copy, tmp_path, capsys):
    with pytest.raises(RecordError, match=re.escape(str(run_copy))):
        read_run(run_copy.parents[2])
    assert main(["inspect", str(tmp_path / "absent")]) == 2
    assert "is not a run" in capsys.readouterr().err
    (run_copy / "result.json").write_text('{"schema": 99}')
    assert main(["inspect", str(run_copy)]) == 2
    assert "schema 99" in capsys.readouterr().err


def sequence(run_copy):
    """The record of a sequence of two tasks, made from one of a class-incremental run."""
    record = json.loads((run_copy / "result.json").read_text())
    known = {"kind": "segmentation", "primary": "miou", "higher_is_better": True, "class_names": ["background", "disc"]}
    tasks = [{**known, "name": "figures"}]
    tasks += [{"name": "colours", "kind": "colorization", "primary": "mse", "higher_is_better": False}]
    scores = [
        [{"task": "figures", "metrics": {"miou": {"all": 6 / 7 / 2 + 1 / 4}}, "confusion": [[90, 10], [5, 15]]}],
        [
            {"task": "figures", "metrics": {"miou": {"all": 10 / 27 + 0.15}}, "confusion": [[80, 20], [8, 12]]},
            {"task": "colours", "metrics": {"mse": 1234.5, "ssim": 0.5}},
        ],
    ]
    model = {"tensors": 100, "file": 2048, "formula": 3 * 2**20}
    for step, found, task in zip(record["steps"], scores, tasks, strict=True):
        step.update(evaluations=found, task=task["name"], model=model)
    changed(run_copy, tasks=tasks, steps=record["steps"], class_names=[])


def test_a_sequence_shows_scores_by_task_and_step(run_copy):
    sequence(run_copy)
    text = describe_run(run_copy)
    rows = [line.split() for line in block(text, "score of each task after each step")]
    assert rows[0] == ["task", "metric", "after", "0", "after", "1"]
    assert rows[1] == ["figures", "mIoU,", "higher", "is", "better", "67.9", "52.0"]
    assert rows[2] == ["colours", "MSE,", "lower", "is", "better", "1234"]
    steps = [line.split() for line in block(text, "steps")[1:]]
    assert [line[1] for line in steps] == ["figures", "colours"]
    assert steps[0][-4:] == ["3.0", "MiB", "2.0", "KiB"]
    pairs = [line.split() for line in block(text, "taken for another class of figures, after step 1")[1:]]
    assert pairs == [["disc", "background", "40.0", "%", "8"], ["background", "disc", "20.0", "%", "20"]]
