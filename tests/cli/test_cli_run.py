"""Whole runs through the command line, on ten images of 32x32."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

import densecl
from data_trees import few_drawn
from densecl.cli import main
from densecl.records.record import read_record
from densecl.settings.grammar import parse_one
from tiny_runs import BACKBONE, CLASSES, SETTINGS, flags, run_words

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
HELD = [(set(classes) & {*range(1, 16)}, set(classes) & {*range(16, 21)}) for classes in CLASSES]


def run(data, output, *more, **which):
    """A run that must succeed: its folder and record."""
    before = set(output.rglob("result.json"))
    assert main(run_words(data, output, *more, **which)) == 0
    (path,) = set(output.rglob("result.json")) - before
    return path.parent, read_record(path)


def weights(folder):
    return {path.name: load(path.read_bytes()) for path in sorted((folder / "weights").glob("*.safetensors"))}


def assert_equal_bits(some, others):
    assert some.keys() == others.keys()
    for name, tensors in some.items():
        assert tensors.keys() == others[name].keys()
        assert all(torch.equal(tensor, others[name][key]) for key, tensor in tensors.items())


# ---- a run


def test_a_run_records_all_its_steps_and_keeps_their_weights(finished):
    (path,) = (finished / "results").rglob("result.json")
    assert path.parent.parts[-4:-1] == ("voc15-5", "mib", "bisenet-mini")
    record = read_record(path)
    assert path.parent.name == f"s0-{record.hash}"
    assert (record.status, record.strategy, record.seed) == ("finished", "mib", 0)
    assert [step.iterations for step in record.steps] == [4, 4]
    assert record.planned_steps == [[*range(1, 16)], [*range(16, 21)]]
    assert record.class_names[0] == "background"
    assert len(record.class_names) == 21
    for step in record.steps:  # three images of 32x32, whose first two rows are void
        matrix = np.array(step.evaluations[0].confusion)
        assert matrix.shape == (21, 21)
        assert matrix.sum() == 3 * 32 * 30
        assert np.count_nonzero(matrix.sum(axis=0)) > 1  # else equal matrices would say little
    outputs = {name: tensors["heads.places.0.0.bias"].shape for name, tensors in weights(path.parent).items()}
    assert outputs == {"step0.safetensors": (16,), "step1.safetensors": (16,)}
    assert weights(path.parent)["step1.safetensors"]["heads.places.0.1.bias"].shape == (5,)
    assert not [file for file in finished.rglob("*") if ".tmp" in file.name]


def test_a_finished_run_is_not_trained_again(run_copy, finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.is_file()}
    assert main(run_words(finished / "data", run_copy.parents[3])) == 0
    shown = capsys.readouterr()
    assert shown.err[9:] == f"already finished: {run_copy / 'result.json'} (--fresh starts over)\n"
    assert shown.out.startswith("voc15-5")
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("share", [[], ["--no-share"]])
def test_a_fresh_run_ends_with_the_same_bits(run_copy, finished, share):
    before, kept = read_record(run_copy / "result.json"), weights(run_copy)
    for path in run_copy.glob("weights/*"):
        path.write_bytes(b"")
    assert main(run_words(finished / "data", run_copy.parents[3], "--fresh", "--quiet", *share)) == 0
    assert_equal_bits(weights(run_copy), kept)
    again = read_record(run_copy / "result.json")
    assert again.steps[0].shared is (not share)
    assert [step.evaluations for step in again.steps] == [step.evaluations for step in before.steps]


def test_a_run_whose_record_is_broken_is_trained_again(run_copy, finished):
    kept = weights(run_copy)
    (run_copy / "result.json").write_text("{")
    assert main(run_words(finished / "data", run_copy.parents[3], "--quiet")) == 0
    assert read_record(run_copy / "result.json").status == "finished"
    assert_equal_bits(weights(run_copy), kept)


def test_workers_do_not_change_a_bit(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(finished / "cache"))
    (path,) = (finished / "results").rglob("result.json")
    folder, _ = run(finished / "data", tmp_path, "--quiet", "--workers", "1")
    assert folder.name == path.parent.name
    assert_equal_bits(weights(folder), weights(path.parent))


def test_a_seed_and_a_setting_make_other_runs(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(finished / "cache"))
    (path,) = (finished / "results").rglob("result.json")
    first = weights(path.parent)["step0.safetensors"]
    for more in (["--seed", "1"], ["--set", "training.lr=0.5"]):
        folder, _ = run(finished / "data", tmp_path, "--quiet", *more)
        other = weights(folder)["step0.safetensors"]
        assert any(not torch.equal(tensor, other[key]) for key, tensor in first.items())


@pytest.mark.parametrize("strategy", ["finetune", "lwf", "ilt", "joint", "mib+replay(memory=5)", "mib+ewc", "lwf+si"])
def test_every_kind_of_method_runs_through_all_steps(voc, tmp_path, strategy):
    _, record = run(voc, tmp_path / "results", "--quiet", benchmark="voc10-5", strategy=strategy)
    assert record.status == "finished"
    assert len(record.steps) == (1 if strategy == "joint" else 3)
    assert len(record.planned_steps) == 3
    assert record.resumable is ("si" not in strategy)


def test_bf16_on_a_cpu_differs_from_fp32_and_is_recorded(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(finished / "cache"))
    folder, record = run(finished / "data", tmp_path, "--quiet", "--precision", "bf16")
    assert record.settings["training"]["precision"] == "bf16"
    (path,) = (finished / "results").rglob("result.json")
    assert folder.name != path.parent.name
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(folder)["step1.safetensors"].values())


def test_validation_scores_held_out_training_images(voc, tmp_path):
    shutil.rmtree(voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", ignore_errors=True)
    _, record = run(voc, tmp_path / "results", "--quiet", "--validation", "0.2")
    assert record.settings["data"]["validation"] == 0.2
    assert np.sum(record.steps[1].evaluations[0].confusion) == 2 * 32 * 30


def test_a_run_that_stopped_shows_in_the_table_as_unfinished(voc, tmp_path, capsys):
    words = run_words(voc, tmp_path / "results", "--quiet", "--set", "training.later.lr=1e30")
    assert main(words) == 2
    line = capsys.readouterr().err
    assert "the loss is not finite at step 1" in line
    assert line.count("\n") == 1
    (path,) = (tmp_path / "results").rglob("result.json")
    record = read_record(path)
    assert record.status == "failed"
    assert len(record.steps) == 1
    assert main(["table", str(tmp_path / "results")]) == 0
    assert "1 of 2 steps" in capsys.readouterr().out


# ---- plan


def test_a_dry_run_shows_steps_and_cost_and_writes_nothing(voc, tmp_path, capsys):
    assert main(run_words(voc, tmp_path / "results", "--dry-run")) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert not (tmp_path / "results").exists()
    rows = [line.split() for line in shown.out.splitlines()]
    base, added = sum(bool(b) for b, _ in HELD), sum(bool(a) for _, a in HELD)
    assert ["0", str(base), "1", "4", "aeroplane,", "bicycle,"] in [row[:6] for row in rows]
    assert ["1", str(added), "2", "4", "pottedplant,", "sheep,"] in [row[:6] for row in rows]
    assert str(tmp_path / "results" / "voc15-5" / "mib" / "bisenet-mini" / "s0-") in shown.out
    assert "8 iterations of 2 images on cpu, fp32" in shown.out


def test_a_dry_run_counts_what_the_run_will_train(voc, tmp_path, capsys):
    more = ["--set", "stream.setting=disjoint", "--validation", "0.2", "--set", "training.epochs=3"]
    assert main(run_words(voc, tmp_path / "results", *more, "--dry-run")) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    planned = [(int(row[1]), int(row[3])) for row in rows if row and row[0] in ("0", "1")]
    assert sum(images for images, _ in planned) == 8
    _, record = run(voc, tmp_path / "results", "--quiet", *more)
    assert [step.iterations for step in record.steps] == [iterations for _, iterations in planned]


def test_a_dry_run_does_not_fetch_pretrained_weights(voc, tmp_path, monkeypatch, capsys):
    import timm

    made = timm.create_model
    fetched = []

    def create_model(*arguments, **options):
        fetched.append(options.get("pretrained"))
        return made(*arguments, **{**options, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", create_model)
    words = ["run", "-b", "voc15-5", "-s", "mib", "--data", voc, "--output", tmp_path / "results", "--dry-run"]
    words += [
        "--device",
        "cpu",
        "--backbone",
        "bisenet(encoder=resnet18)",
        *flags("training.crop=32", "evaluation.size=32"),
    ]
    assert main([str(word) for word in words]) == 0
    assert True not in fetched
    assert "30 " in capsys.readouterr().out  # the field's recipe: 30 epochs


# ---- from Python


def test_a_run_from_python_returns_the_record_and_prints_nothing(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DENSECL_CACHE", str(finished / "cache"))
    record = densecl.run(
        "voc15-5",
        "mib",
        backbone=BACKBONE,
        data=str(finished / "data"),
        output=str(tmp_path),
        device="cpu",
        assignments=SETTINGS,
    )
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
    (path,) = tmp_path.rglob("result.json")
    assert read_record(path) == record
    (cli,) = (finished / "results").rglob("result.json")
    assert record.hash == read_record(cli).hash
    assert [s.evaluations for s in record.steps] == [s.evaluations for s in read_record(cli).steps]


# ---- what is shown


def test_a_run_says_on_stderr_how_it_goes_and_the_table_on_stdout(voc, tmp_path, capsys):
    folder, _ = run(voc, tmp_path / "results")
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert [re.sub(r" in [\d.]+ s.*", "", line[9:]) for line in lines] == [
        f"{folder}: 2 steps, 20 classes",
        "step 0 (1 of 2) begins: 4 iterations in 1 epoch",
        "step 0 (1 of 2): 4 iterations",
        "step 1 (2 of 2) begins: 4 iterations in 2 epochs",
        "step 1 (2 of 2): 4 iterations",
    ]
    assert "-0.000" not in shown.err
    assert "mib" in shown.out


def test_quiet_leaves_the_table_alone(voc, tmp_path, capsys):
    run(voc, tmp_path / "results", "--quiet")
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "mib" in shown.out


def test_the_table_of_runs(finished, capsys):
    assert main(["table", str(finished / "results")]) == 0
    assert "1-15" in capsys.readouterr().out
    assert main(["table", str(finished / "results"), "--per-step", "--format", "csv"]) == 0
    header, row = capsys.readouterr().out.splitlines()[:2]
    assert "step 1" in header
    assert row.startswith("voc15-5,mib,")


def call(*words, env=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(env or {})}
    environment.pop("PYTHONWARNINGS", None)
    command = [sys.executable, "-m", "densecl", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_no_warning_of_a_library_reaches_the_screen(finished, tmp_path):
    words = run_words(finished / "data", tmp_path, "--workers", "1", strategy="mib+replay(memory=4)+ewc+si")
    result = call(*words, env={"DENSECL_CACHE": str(finished / "cache")})
    assert result.returncode == 0
    ours = (str(tmp_path), "step ", "the first step was trained before")
    assert [line for line in result.stderr.splitlines() if not line[9:].startswith(ours)] == []  # after the time
    assert result.stdout.startswith("voc15-5")


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "strategies"]])
def test_help_and_lists_take_less_than_a_second_and_no_torch(words):
    code = f"import sys\nfrom densecl.cli import main\nassert main({words!r}) == 0\nassert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    times = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 1.5


# ---- show, cite, list, data


def test_lists_name_every_recipe(capsys):
    assert main(["list"]) == 0
    words = capsys.readouterr().out.split()
    assert {"voc15-5s", "shapes15-5", "camvid6-1", "mib", "finetune", "+replay", "+si", "bisenet", "unet"} <= set(words)
    assert main(["list", "backbones"]) == 0
    assert "mib" not in capsys.readouterr().out
    assert main(["list", "groupings"]) == 0
    assert "fg-only       background counts nowhere (MiB)" in capsys.readouterr().out


def test_show_tells_hyper_parameters_settings_and_steps(voc, capsys):
    for name, words in {
        "mib": ["distillation = 10.0", "Cermelli"],
        "replay": ["memory = 200  (int)"],
        "si": ["si_lambda = 1"],
        "unet": ["width = "],
        "voc15-5s": ["batch=24", "lr=0.01", "epochs=30"],
    }.items():
        assert main(["show", name]) == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words), out
    assert main(["show", "voc15-5", "--data", str(voc)]) == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["0", "10", "5"] in rows  # overlapped, disjoint
    assert ["1", "5", "5"] in rows


def test_cite_reads_what_a_run_is_named_by(capsys):
    assert main(["cite", "voc15-5(setting=disjoint), mib(distillation=5)+replay(memory=3)"]) == 0
    out = capsys.readouterr().out
    assert out.count("@") == 2
    assert "everingham2010pascal" in out
    assert "cermelli2020modeling" in out


def test_data_path_and_make(voc, tmp_path, monkeypatch, capsys):
    assert main(["data", "path", "voc2012", "--data", str(voc)]) == 0
    assert capsys.readouterr().out == f"{voc / 'VOCdevkit' / 'VOC2012'}\n"
    few_drawn(monkeypatch, 4, 2, 2)
    assert main(["data", "make", "shapes"]) == 0
    made = Path(capsys.readouterr().out.strip())
    assert made.parent == tmp_path / "cache"
    assert len(list((made / "JPEGImages").iterdir())) == 8
    assert main(["data", "path", "shapes"]) == 0
    assert capsys.readouterr().out == f"{made}\n"


def test_data_without_a_command_shows_its_help(capsys):
    assert main(["data"]) == 0
    shown = capsys.readouterr()
    assert "verify" in shown.out
    assert shown.err == ""


def test_settings_of_the_tests_are_what_the_record_holds(finished):
    (path,) = (finished / "results").rglob("result.json")
    settings = json.loads(path.read_text())["settings"]
    assert settings["backbone_values"]["width"] == parse_one(BACKBONE, "backbone").arguments["width"]
    assert settings["training"]["crop"] == 32
    assert settings["data"]["root"] == str(finished / "data")
