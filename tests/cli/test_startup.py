"""Answers from recipes and refusals of mistyped names and paths come before anything slow is imported."""

import pytest

import fresh_process
from densecl.cli import main
from report_runs import committed

SLOW = ("torch", "torchvision", "avalanche", "timm", "matplotlib", "scipy")


def answer(*words, cwd):
    """Exit code, output, complaint of a command, and the slow packages that it imported."""
    result = fresh_process.answer(*words, cwd=cwd)
    return result.returncode, result.stdout, result.stderr.rstrip("\n"), [n for n in SLOW if n in result.modules]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], "predict"),
        (["predict", "--help"], "--strategy"),
        (["list"], "shapes15-5"),
        (["list", "data"], "cityscapes"),
        (["doctor", "--quick"], "versions and folders are right"),
        (["show", "mib"], "distillation = 10.0  (float)  weight of eq. 8"),
        (["show", "si"], "si_lambda = 1"),
        (["show", "deeplabv3"], "  preset: mib, dkd, ssul"),
        (["show", "shapes15-5"], "step 1: classes 16, 17, 18, 19, 20"),
        (["show", "shapes-5tasks"], "swirls: style transfer on tints"),
        (["cite", "voc15-5, mib"], "cermelli2020modeling"),
    ],
)
def test_answers_from_recipes_import_nothing_slow(words, shown, tmp_path):
    code, out, said, slow = answer(*words, cwd=tmp_path)
    assert (code, said, slow) == (0, "", [])
    assert shown in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["predict", "nowhere", "x.jpg"], "nowhere is not a run"),
        (["evaluate", "nowhere"], "nowhere is not a run"),
        (["inspect", "nowhere"], "nowhere is not a run"),
        (["inspect", "nowhere", "--masks"], "nowhere is not a run"),
        (["bank", "nowhere"], "nowhere is not a run"),
        (["table", "nowhere"], "the folder nowhere does not exist"),
        (["report", "nowhere"], "the folder nowhere does not exist"),
        (["run", "-b", "nonsense", "-s", "mib"], "unknown benchmark 'nonsense'"),
        (["run", "-b", "shapes15-5", "-s", "nonsense"], "unknown strategy or plugin 'nonsense'"),
        (["run", "-b", "shapes15-5", "-s", "mib+nonsense"], "unknown strategy or plugin 'nonsense'"),
        (["run", "-b", "shapes15-5", "-s", "nowhere.py:Mine"], "there is no file"),
        (["run", "-b", "shapes15-5", "-s", "mib", "--backbone", "nonsense"], "unknown backbone 'nonsense'"),
        (["run", "-b", "voc15-5", "-s", "mib", "--data", "nowhere"], "--data nowhere: there is no such folder"),
        (["run", "-b", "voc15-5", "-s", "mib", "--weights", "no/where"], "--weights no/where: there is no such file"),
        (["run", "-b", "voc15-5", "-s", "mib", "--first", "nowhere"], "--first nowhere: there is no such file"),
        (["run", "-b", "voc15-5", "-s", "mib", "--first-map", "nowhere"], "--first-map nowhere: there is no such file"),
        (["run", "-b", "voc15-5", "-s", "mib", "--catalogue", "nowhere"], "the catalogue folder nowhere"),
        (["sweep", "nowhere.toml"], "cannot read the plan nowhere.toml"),
        (["score", "nowhere", "-b", "voc15-5"], "there is no folder nowhere"),
        (["score", "nowhere.py:Mine", "-b", "voc15-5"], "there is no file"),
        (["score", ".", "-b", "voc15-5", "--about", "nowhere"], "--about nowhere: there is no such file"),
        (["first", "import", "nowhere"], "nowhere: there is no such file"),
        (["check", "nowhere.py:Mine"], "there is no file"),
        (["check", "finetune", "--data", "nowhere"], "--data nowhere: there is no such folder"),
        (["table", ".", "--against", "nowhere"], "--against nowhere: no published numbers there"),
        (["check", "nonsense"], "unknown strategy or plugin 'nonsense'"),
        (["show", "nonsense"], "unknown name 'nonsense'"),
        (["cite", "nonsense"], "unknown name 'nonsense'"),
        (["list", "nonsense"], "unknown kind 'nonsense'. known: backbones, benchmarks, data, groupings, strategies"),
        (["data", "verify", "nonsense"], "unknown data set 'nonsense'"),
        (["data", "get", "nonsense"], "unknown data set 'nonsense'"),
    ],
)
def test_mistyped_names_and_paths_are_refused_before_anything_slow_is_imported(words, named, tmp_path):
    code, out, said, slow = answer(*words, cwd=tmp_path)
    assert (code, out, slow) == (2, "", [])
    assert named in said
    assert said.count("\n") == 0


def test_a_missing_image_is_refused_before_anything_slow_is_imported(tmp_path):
    folder = committed(tmp_path, 0)
    code, _, said, slow = answer("predict", str(folder), "nowhere.jpg", cwd=tmp_path)
    assert (code, slow) == (2, [])
    assert "image nowhere.jpg is missing" in said


def test_a_run_is_described_without_torch(tmp_path):
    folder = committed(tmp_path, 0)
    for words in (["inspect", str(folder)], ["bank", str(folder)]):
        assert "torch" not in answer(*words, cwd=tmp_path)[3]


def test_a_folder_of_runs_is_no_run_and_one_of_them_is_named(tmp_path, capsys):
    folder = committed(tmp_path, 0)
    assert main(["evaluate", str(tmp_path)]) == 2
    assert f"such as {folder}" in capsys.readouterr().err


def test_the_list_of_a_catalogue_names_recipes_that_cannot_be_used(tmp_path):
    own, good = tmp_path / "own" / "benchmarks", 'summary = "one"\nclasses = 20\nsplits = ["15-5"]\nbackbone = "unet"\n'
    own.mkdir(parents=True)
    for name, text in {
        "good": good,
        "typo": f"{good}epoch = 3\n",
        "torn": "family = ",
        "bare": 'family = "bare"\n',
    }.items():
        (own / f"{name}.toml").write_text(f'family = "{name}"\n{text}' if "family" not in text else text)
    code, out, said, slow = answer("list", "benchmarks", "--catalogue", str(tmp_path / "own"), cwd=tmp_path)
    assert (code, slow) == (0, [])
    assert "good15-5" in out
    assert not {"typo15-5", "torn", "bare"} & set(out.split())
    lines = said.splitlines()
    assert [line.startswith("densecl: left out: ") for line in lines] == [True] * 3
    for name, named in (("typo", "'epoch'"), ("torn", "cannot read"), ("bare", "'summary' is missing")):
        assert any(str(own / f"{name}.toml") in line and named in line for line in lines), name


def test_recipes_that_lie_in_the_working_folder_or_beside_results_are_not_read(tmp_path):
    text = 'name = "gift"\nclass = "gift.py:Gift"\nsummary = "beside results"\n'
    for folder in (tmp_path, tmp_path / "results"):
        (folder / "strategies").mkdir(parents=True)
        (folder / "strategies" / "gift.toml").write_text(text)
        (folder / "gift.py").write_text("raise SystemExit('executed')\n")
    assert "gift" not in answer("list", "strategies", cwd=tmp_path)[1]
    code, _, said, slow = answer("run", "-b", "shapes15-5", "-s", "gift", cwd=tmp_path)
    assert (code, slow) == (2, [])
    assert "unknown strategy or plugin 'gift'" in said
