"""Bad input of any kind: exit code 2, one line on stderr that names what is wrong, nothing left in the output."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_trees import LISTS, camvid_tree, noise_image, palette_mask
from densecl.cli import main
from tiny_runs import SIZE, refused, refused_run, run_words

pytestmark = pytest.mark.usefixtures("one_thread")
VOC = Path("VOCdevkit", "VOC2012")
ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")


# ---- names, keys and values


@pytest.mark.parametrize(
    ("which", "more", "named"),
    [
        (
            {"benchmark": "voc15-5x"},
            [],
            [
                "benchmark 'voc15-5x': '15-5x' is not a split",
                "did you mean 'voc15-5'",
                "so on), such as voc19-1",
            ],
        ),
        ({"benchmark": "voc155"}, [], ["'155' is not a split"]),
        ({"benchmark": "vok15-5"}, [], ["unknown benchmark 'vok15-5'", "did you mean 'voc15-5'"]),
        ({"benchmark": "voc15-7"}, [], ["'15-7' does not sum to 20 classes", "A-Bs (A, then B more, one at a time)"]),
        ({"benchmark": "voc15-5(epoch=2)"}, [], ["'epoch'", "did you mean 'epochs'"]),
        ({"benchmark": "voc15-5(momentum=two)"}, [], ["'training.momentum' cannot be 'two'"]),
        ({"benchmark": "voc15-5("}, [], ["voc15-5("]),
        ({"benchmark": ""}, [], ["expected a name, got empty text"]),
        ({"strategy": "mibb"}, [], ["'mibb'", "did you mean 'mib'"]),
        ({"strategy": "mib+lwf"}, [], ["'mib+lwf' names two strategies, mib and lwf"]),
        ({"strategy": "replay"}, [], ["names no strategy", "finetune+replay"]),
        ({"strategy": "mib(distilation=5)"}, [], ["'distilation'", "did you mean 'distillation'"]),
        ({"strategy": "mib(distillation=much)"}, [], ["mib.distillation cannot be 'much'"]),
        ({"strategy": "mib+replay(ratio=-1)"}, [], ["replay.ratio cannot be -1", "greater than or equal to 0"]),
        ({"strategy": "mib+replay(memory=0)"}, [], ["replay.memory cannot be 0"]),
        ({"strategy": "mib+si(si_lambda=much)"}, [], ["si has si_lambda='much'", "valid number"]),
        ({"strategy": "mib+si(lambda=1)"}, [], ["'lambda'", "did you mean 'si_lambda'"]),
        ({"strategy": "finetune+avalanche.training.plugins:EWCPlugi"}, [], ["'EWCPlugi'", "did you mean 'EWCPlugin'"]),
        ({"strategy": "torch.nn:Conv2d"}, [], ["torch.nn:Conv2d", "neither a strategy nor a plugin"]),
        ({}, ["--backbone", "bisnet"], ["unknown backbone 'bisnet'", "did you mean 'bisenet'"]),
        ({}, ["--backbone", "bisenet(encodr=mini)"], ["'encodr'", "did you mean 'encoder'"]),
        ({}, ["--backbone", "bisenet(encoder=resnet19)"], ["unknown encoder 'resnet19'", "did you mean 'resnet18'"]),
        ({}, ["--set", "backbone.width=-3"], ["width=-3"]),
        ({}, ["--set", "backbone.width=wide"], ["width='wide'"]),
        ({}, ["--set", "training.epoch=2"], ["'training.epoch'", "did you mean 'training.epochs'"]),
        ({}, ["--set", "training.batch=0"], ["'training.batch' cannot be 0"]),
        ({}, ["--set", "training.lr=nan"], ["'training.lr' cannot be 'nan'"]),
        ({}, ["--set", "trainin.lr=1"], ["unknown section 'trainin'", "did you mean 'training'"]),
        ({}, ["--set", "stream.setting=disjont"], ["'stream.setting' cannot be 'disjont'", "'disjoint'"]),
        ({}, ["--set", "stream.order=[1,2,3]"], ["stream.order [1, 2, 3]"]),
        ({}, ["--set", "data.name=vok"], ["unknown data set 'vok'", "did you mean 'voc'"]),
        ({}, ["--set", "lr=1"], ["'lr' names no section"]),
        ({}, ["--set", "training.later={iterations=200}"], ["a value cannot be a table", "training.later.KEY=VALUE"]),
        ({}, ["--set", ""], ["expected key=value"]),
        ({}, ["--precision", "fp8"], ["'training.precision' cannot be 'fp8'"]),
        ({}, ["--precision", "fp16"], ["fp16 needs a CUDA device"]),
        ({}, ["--device", "gpu"], ["no device 'gpu'", "this machine has cpu"]),
        ({}, ["--device", "cuda:99"], ["no device 'cuda:99'"]),
        ({}, ["--validation", "1"], ["'data.validation' cannot be 1"]),
        ({}, ["--weights", "absent.pth"], ["absent.pth"]),
        ({}, ["--seed", "x"], ["--seed", "valid integer"]),
        ({}, ["--workers", "-1"], ["--workers"]),
        ({}, ["--nonsense"], ["--nonsense"]),
        ({}, ["--catalogue", "absent"], ["the catalogue folder absent does not exist"]),
    ],
)
def test_wrong_names_keys_and_values(capsys, voc, which, more, named):
    refused_run(capsys, voc, named, *more, **which)


def test_a_seed_below_zero(capsys, voc):
    line = refused_run(capsys, voc, ["--seed"], "--seed", "-1")
    assert re.search(r"greater than or equal to 0|-1 is not in the range x>=0", line)  # newer and older libraries


def test_missing_options():
    assert main(["run", "-b", "voc15-5"]) == 2


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_recipe_with_an_unknown_key(capsys, voc, tmp_path, dry):
    path = tmp_path / "own" / "benchmarks" / "x.toml"
    path.parent.mkdir(parents=True)
    path.write_text('family = "x"\nsummary = ""\nclasses = 20\nsplits = []\nbackbone = "unet"\n[training]\nepoch = 3\n')
    named = [path, "training.epoch", "did you mean 'training.epochs'"]
    refused_run(capsys, voc, named, "--catalogue", str(tmp_path / "own"), *dry, benchmark="x15-5")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import nothing_of_that_name\n", ["mine.py:1 does not import", "nothing_of_that_name"]),
        ("x = 1\nclass Mine(:\n", ["mine.py:2 does not import", "SyntaxError"]),
        ("def f():\n    1 / 0\nf()\n", ["mine.py:2 does not import", "ZeroDivisionError"]),
        ("class Other:\n    pass\n", ["'Mine'", "Other"]),
        ("class Mine:\n    pass\n", ["neither a strategy nor a plugin"]),
    ],
)
def test_a_method_file_that_cannot_be_used(capsys, voc, tmp_path, text, named):
    path = tmp_path / "mine.py"
    path.write_text(text)
    refused_run(capsys, voc, named, strategy=f"{path}:Mine")
    refused(capsys, ["check", f"{path}:Mine"], *named)


def test_a_method_file_that_is_not_there(capsys, voc):
    refused_run(capsys, voc, ["absent.py"], strategy="absent.py:Mine")


# ---- data


def edited(voc, *, mask=None, image=None, split="train", number=3):
    """Replace one mask by an array, or change the bytes of one image."""
    name = f"{split}_{number}"
    if mask is not None:
        palette_mask(voc / VOC / "SegmentationClass" / f"{name}.png", mask)
        return voc / VOC / "SegmentationClass" / f"{name}.png"
    path = voc / VOC / "JPEGImages" / f"{name}.jpg"
    path.write_bytes(image(path.read_bytes()))
    return path


def test_a_data_folder_that_is_missing(capsys, voc):
    refused_run(capsys, voc / "absent", [voc / "absent", "no such folder", "--data"], output=voc.parent / "results")


def test_a_data_folder_without_masks(capsys, voc):
    shutil.rmtree(voc / VOC / "SegmentationClass")
    refused_run(capsys, voc, [voc / VOC / "SegmentationClass", "missing"])


def test_masks_that_a_list_names_and_that_are_missing(capsys, voc):
    (voc / VOC / "SegmentationClass" / "train_4.png").unlink()
    refused_run(capsys, voc, ["train_4.png", "train.txt"])


def test_an_empty_list(capsys, voc):
    (voc / VOC / LISTS / "val.txt").write_text("")
    refused_run(capsys, voc, ["val.txt", "empty"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_mask_with_an_illegal_class_id(capsys, voc, split):
    path = edited(voc, mask=np.full((SIZE, SIZE), 77, np.uint8), split=split, number=1)
    refused_run(capsys, voc, [path, "77", "0-20, 255"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_mask_of_another_size_than_its_image(capsys, voc, split):
    path = edited(voc, mask=np.ones((SIZE, SIZE - 2), np.uint8), split=split, number=1)
    refused_run(capsys, voc, [path, "30x32", "32x32"])


def test_a_mask_that_is_cut(capsys, voc):
    path = voc / VOC / "SegmentationClass" / "train_3.png"
    path.write_bytes(path.read_bytes()[:-40])
    refused_run(capsys, voc, [path, "cannot be read"])


def test_an_image_that_is_none(capsys, voc):
    path = edited(voc, image=lambda content: b"nothing")
    refused_run(capsys, voc, [path, "not an image"])


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_that_is_cut_is_named_when_it_is_read(capsys, voc, workers):
    for number in range(10):
        edited(voc, image=lambda content: content[: len(content) * 2 // 3], number=number)
    output = voc.parent / "results"
    assert main(run_words(voc, output, "--quiet", "--workers", workers)) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert shown.err.startswith(f"densecl: image {voc / VOC / 'JPEGImages' / 'train_'}")
    assert "truncated" in shown.err
    assert "Traceback" not in shown.err
    assert not list(output.rglob("*"))


def test_an_empty_step(capsys, voc):
    (voc / VOC / LISTS / "train.txt").write_text("train_0\ntrain_1\n")
    refused_run(capsys, voc, ["step 1", "16, 17, 18, 19, 20", "no image"])


def test_data_of_another_kind(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    camvid_tree(tmp_path)
    refused_run(capsys, tmp_path / "CamVid", ["no voc2012 data in", tmp_path / "CamVid"], output=tmp_path / "results")


def test_what_a_run_refuses_its_dry_run_refuses(capsys, voc):
    path = edited(voc, mask=np.full((SIZE, SIZE), 77, np.uint8), split="val", number=1)
    refused_run(capsys, voc, [path, "77"], "--dry-run")


# ---- the other commands


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tabel"], ["No such command 'tabel'"]),
        (["show", "mibb"], ["'mibb'", "did you mean 'mib'"]),
        (["show", ""], ["unknown name ''"]),
        (["cite", "mibb"], ["'mibb'", "did you mean 'mib'"]),
        (["cite", "finetune"], ["'finetune' comes from no paper"]),
        (["list", "strategy"], ["'strategy'", "did you mean 'strategies'"]),
        (["list", "--catalogue", "absent"], ["absent"]),
        (["check", "mibb"], ["'mibb'", "did you mean 'mib'"]),
        (["check", "mib(distilation=1)"], ["'distilation'", "did you mean 'distillation'"]),
        (["check", "absent.py:Mine"], ["absent.py"]),
        (["data", "path", "vok"], ["unknown data set 'vok'", "did you mean 'voc'"]),
        (["data", "path", "voc2012", "--data", "absent"], ["absent", "no such folder"]),
        (["data", "make", "voc2012"], ["voc"]),
        (["data", "gett"], ["No such command 'gett'"]),
        (["evaluate", "absent"], ["absent is not a run", "result.json"]),
        (["table", "absent"], ["the folder absent does not exist"]),
        (["show", "voc15-5", "--data", "absent"], ["absent"]),
    ],
)
def test_the_other_commands_refuse_in_one_line_too(capsys, words, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, words, *named)
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_an_empty_folder(capsys, tmp_path):
    refused(capsys, ["table", tmp_path], tmp_path, "no result.json")


def test_the_table_names_a_broken_record_and_shows_the_others(capsys, run_copy):
    broken = run_copy.parent / "s1-broken" / "result.json"
    broken.parent.mkdir()
    broken.write_text((run_copy / "result.json").read_text()[:200])
    assert main(["table", str(run_copy.parents[3])]) == 0
    shown = capsys.readouterr()
    assert "mib" in shown.out
    assert str(broken) in shown.err
    assert shown.err.count("\n") == 1


def test_data_without_a_whole_layout_is_found_by_verify(capsys, voc):
    assert main(["data", "verify", "voc2012", "--data", str(voc)]) == 0
    path = edited(voc, mask=np.full((SIZE, SIZE), 77, np.uint8))
    noise_image(voc / VOC / "JPEGImages" / "train_5.jpg", (SIZE, SIZE + 1))
    capsys.readouterr()
    assert main(["data", "verify", "voc2012", "--data", str(voc)]) == 2
    errors = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    assert len(errors) == 2
    assert f"{path} holds the class id 77" in errors[0]
    assert "train_5.png" in errors[1]
