"""Kept weights are scored again as the run scored them."""

import json
import shutil

import numpy as np
import pytest

from densecl.cli import main
from densecl.finished.evaluate import reevaluate
from densecl.records.record import read_record
from tiny_runs import refused, run_words

pytestmark = pytest.mark.usefixtures("one_thread")


def evaluation(capsys, folder, *more):
    assert main(["evaluate", str(folder), "--json", *more]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return json.loads(shown.out)


@pytest.mark.parametrize("step", [0, 1])
def test_the_evaluation_of_a_step_is_the_recorded_one(run_copy, capsys, step):
    recorded = read_record(run_copy / "result.json").steps[step].evaluations[0]
    again = evaluation(capsys, run_copy, "--step", str(step))
    assert again["confusion"] == recorded.confusion
    assert again["metrics"] == recorded.metrics


def test_the_record_counts_the_parameters_that_were_kept(run_copy):
    from safetensors.numpy import load_file

    for step in read_record(run_copy / "result.json").steps:
        (file,) = (run_copy / "weights").glob(f"*{step.step}*")
        kept = {name: array for name, array in load_file(file).items() if "running" not in name and "num_b" not in name}
        assert step.parameters == sum(array.size for array in kept.values())


def test_the_last_step_is_the_default_and_nothing_is_written(run_copy, capsys):
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")}
    assert evaluation(capsys, run_copy) == evaluation(capsys, run_copy, "--step", "1")
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")} == before


@pytest.mark.parametrize("strategy", ["joint", "finetune+replay", "lwf+si"])
def test_runs_of_every_kind_are_scored_again(voc, tmp_path, capsys, strategy):
    assert main(run_words(voc, tmp_path / "results", "--quiet", benchmark="voc15-5s", strategy=strategy)) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "results").rglob("result.json")
    assert evaluation(capsys, path.parent)["confusion"] == read_record(path).steps[-1].evaluations[0].confusion


def test_the_order_of_arrival_is_the_runs_own(voc, tmp_path, capsys):
    assert main(run_words(voc, tmp_path / "results", "--quiet", "--set", "stream.order=7")) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "results").rglob("result.json")
    record = read_record(path)
    assert record.settings["stream"]["order"] != sorted(record.settings["stream"]["order"])
    assert evaluation(capsys, path.parent)["confusion"] == record.steps[-1].evaluations[0].confusion


def test_a_run_with_validation_is_scored_on_what_it_held_out(voc, tmp_path, capsys):
    assert main(run_words(voc, tmp_path / "results", "--quiet", "--validation", "0.3")) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "results").rglob("result.json")
    again = evaluation(capsys, path.parent)
    assert again["confusion"] == read_record(path).steps[-1].evaluations[0].confusion
    assert np.sum(again["confusion"]) == 3 * 32 * 30


def test_whole_images_of_the_evaluated_size_score_alike_but_tell_no_forgetting(run_copy, capsys):
    recorded = read_record(run_copy / "result.json").steps[1].evaluations[0]
    again = evaluation(capsys, run_copy, "--evaluation", "full")
    assert again["confusion"] == recorded.confusion
    assert again["metrics"]["miou"] == recorded.metrics["miou"]
    assert again["metrics"]["forgetting"] is None  # learnt under another preset: not to be compared


def test_another_size_counts_other_pixels(run_copy, capsys):
    assert np.sum(evaluation(capsys, run_copy, "--evaluation", "size=16")["confusion"]) == 3 * 16 * 15
    assert evaluation(capsys, run_copy, "--evaluation", "crop32") == evaluation(capsys, run_copy)


def test_forgetting_is_learnt_minus_now(run_copy):
    scored = reevaluate(run_copy)
    then, now = (
        np.array(step.evaluations[0].metrics["iou"], dtype=float) for step in scored.record.steps
    )  # None becomes NaN
    known = ~np.isnan(then[1:16])
    assert known.any()
    forgetting = scored.evaluation.metrics["forgetting"]
    assert forgetting == pytest.approx(float(np.mean((then[1:16] - now[1:16])[known])))


def test_a_record_without_its_plan_and_its_last_score_is_evaluated(run_copy, capsys):
    whole = evaluation(capsys, run_copy)
    path = run_copy / "result.json"
    content = json.loads(path.read_text())
    del content["planned_steps"]
    content["steps"][1]["evaluations"] = []
    path.write_text(json.dumps(content))
    assert evaluation(capsys, run_copy) == whole
    assert main(["evaluate", str(run_copy)]) == 0
    assert "grouping       base  added    all" in capsys.readouterr().out


def test_the_summary_names_every_class(run_copy, capsys):
    assert main(["evaluate", str(run_copy)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("voc15-5  mib  after step 1\n")
    assert all(name in out for name in ("background", "aeroplane", "tvmonitor", "forgetting", "current"))
    assert "-0.0" not in out


def test_data_that_has_moved_is_named_with_data(run_copy, finished, tmp_path, capsys):
    shutil.copytree(finished / "data", tmp_path / "moved")
    recorded = read_record(run_copy / "result.json").steps[1].evaluations[0]
    assert evaluation(capsys, run_copy, "--data", str(tmp_path / "moved"))["confusion"] == recorded.confusion


def test_a_strategy_of_ones_own_catalogue(voc, tmp_path, capsys):
    folder = tmp_path / "own" / "strategies"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('name = "mine"\nclass = "mine.py:Mine"\nsummary = "my own"\n')
    (folder / "mine.py").write_text("from densecl import Strategy\nclass Mine(Strategy):\n    weight: float = 1.0\n")
    own = ["--catalogue", str(tmp_path / "own")]
    assert main(run_words(voc, tmp_path / "results", "--quiet", *own, strategy="mine(weight=2)")) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "results").rglob("result.json")
    assert evaluation(capsys, path.parent, *own)["confusion"] == read_record(path).steps[1].evaluations[0].confusion
    refused(capsys, ["evaluate", path.parent], "'mine'")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--step", "2"], ["finished steps 0 to 1, not 2"]),
        (["--step", "-1"], ["--step"]),
        (["--evaluation", "crop"], ["unknown evaluation preset 'crop'", "size=N"]),
        (["--device", "gpu"], ["no device 'gpu'"]),
        (["--data", "absent"], ["absent"]),
    ],
)
def test_bad_input_is_refused_in_one_line(run_copy, capsys, more, named):
    refused(capsys, ["evaluate", run_copy, *more], *named)


def test_weights_that_are_missing_or_damaged_are_named(run_copy, capsys):
    path = run_copy / "weights" / "step1.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-100])
    refused(capsys, ["evaluate", run_copy], path, "damaged")
    path.unlink()
    refused(capsys, ["evaluate", run_copy], path, "step 1")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda record: record["settings"]["training"].update(nonsense=1), ["nonsense"]),
        (lambda record: record["settings"].pop("backbone"), ["'settings.backbone' is missing"]),
        (lambda record: record["settings"]["stream"].update(order=None), ["settings.stream.order"]),
        (lambda record: record["settings"]["stream"].update(order=[1, 2, 3]), ["result.json", "'15-5'"]),
        (lambda record: record.update(steps=[]), ["no finished step"]),
        (lambda record: record["settings"].update(strategy="absent"), ["'absent'"]),
    ],
)
def test_a_record_that_was_tampered_with_is_refused(run_copy, capsys, change, named):
    record = json.loads((run_copy / "result.json").read_text())
    change(record)
    (run_copy / "result.json").write_text(json.dumps(record))
    refused(capsys, ["evaluate", run_copy], *named)
