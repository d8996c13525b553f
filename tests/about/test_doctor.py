"""What the doctor finds, and that nothing broken stops it."""

import importlib
import json
import os
import shutil
import socket
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from densecl.about import doctor
from densecl.cli import main
from densecl.data import data_set
from densecl.data.sets.shapes import Shapes


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Caches and data of its own, and no way out."""
    for name in ("CACHE", "DATA"):
        monkeypatch.setenv(f"DENSECL_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("DENSECL_CATALOGUE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "data").mkdir()

    def refuse(*_arguments, **_options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def texts(findings, level=None):
    return [finding.text for finding in findings if level in (None, finding.level)]


def test_a_machine_that_works_is_said_to_and_nothing_is_written(tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["doctor"]) == 0
    shown = capsys.readouterr()
    assert "ready to run" in shown.out.splitlines()[-1]
    assert shown.err == ""
    assert "Traceback" not in shown.out
    for word in (
        "torch",
        "avalanche-lib",
        "cpu: ",
        "voc: is not here",
        "densecl data get voc2012",
        "resnet50",
        "cache ",
    ):
        assert word in shown.out
    assert "shapes: is drawn at its first use" in shown.out
    assert sorted(tmp_path.rglob("*")) == before


def test_json_has_the_same_findings(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runnable"] is True
    assert {"packages", "devices", "recipes", "data sets", "weights", "folders"} <= {
        f["part"] for f in found["findings"]
    }
    assert set(found["findings"][0]) == {"level", "part", "text", "advice"}


def test_a_data_set_that_is_here_is_counted_and_compared_with_the_published_one(voc, capsys):
    assert main(["doctor", "--data", str(voc)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if " voc: " in line)
    assert str(voc / "VOCdevkit" / "VOC2012") in line
    assert "10 training and 3 test images" in line
    (found,) = (f for f in doctor.data_sets(voc) if f.text.startswith("voc: "))
    assert found.level == "note"
    assert "10,582 train and 1,449 test" in found.advice


def test_a_broken_data_set_is_a_problem_not_an_end(voc):
    (voc / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").unlink()
    (found,) = (f for f in doctor.data_sets(voc) if f.text.startswith("voc: "))
    assert found.level == "problem"
    assert "val.txt" in found.text


def test_finding_draws_nothing(tmp_path):
    assert data_set("shapes").search() is None
    assert data_set("voc2012").search() is None
    assert not (tmp_path / "cache").exists()
    written = Shapes.folder()
    assert str(written).startswith(str(tmp_path / "cache"))


def test_weights_put_there_by_hand_and_by_the_hub_are_found(tmp_path, monkeypatch):
    absent = texts(doctor.weights(), "note")
    assert any(text.startswith("resnet50: is not here; for ") for text in absent)
    place = tmp_path / "resnet50.safetensors"
    place.write_bytes(b"x")
    monkeypatch.setattr("densecl.models.weights.weights_place", lambda name: tmp_path / f"{name}.safetensors")
    monkeypatch.setattr(doctor, "_cached", lambda name: "/hub/model.safetensors" if name == "resnet101" else None)
    found = texts(doctor.weights(), "ok")
    assert any(text.startswith(f"resnet50: {place}") for text in found)
    assert any(text.startswith("resnet101: /hub/model.safetensors") for text in found)


@pytest.mark.parametrize(
    ("torch", "torchvision", "needed", "said"),
    [
        ("2.5.1", "0.20.1", "torch==2.5.1", None),
        ("2.5.1+cu121", "0.20.1+cu121", "torch==2.5.1", None),
        ("2.6.0", "0.20.1", "torch==2.5.1", "torchvision 0.20.1 needs torch==2.5.1, and torch 2.6.0 is installed"),
        (
            "2.13.0",
            "0.29.2",
            "torch (>=2.14.0)",
            "torchvision 0.29.2 needs torch>=2.14.0, and torch 2.13.0 is installed",
        ),
        ("2.5.1+cpu", "0.20.1+cu121", "torch==2.5.1", "torch 2.5.1+cpu and torchvision 0.20.1+cu121 are builds for"),
        (None, "0.20.1", "torch==2.5.1", None),
    ],
)
def test_torch_and_torchvision_must_fit(torch, torchvision, needed, said):
    found = list(doctor.pair(torch, torchvision, [Requirement(needed)]))
    assert len(found) == (said is not None)
    if said:
        assert found[0].level == "problem"
        assert found[0].text.startswith(said)
        assert "pip install" in found[0].advice


def test_an_old_or_absent_package_is_named_with_the_command():
    assert doctor.unmet(Requirement("torch>=2.6"), "2.4.0") == "torch 2.4.0 is installed, >=2.6 is needed"
    assert doctor.unmet(Requirement("torch>=2.6"), None) == "torch is not installed"
    assert doctor.unmet(Requirement("torch>=2.6"), "2.6.0+cu124") == ""


def test_a_package_that_does_not_import_ends_in_exit_code_2_and_one_screen(monkeypatch, capsys):
    real = importlib.import_module

    def broken(name, package=None):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nsecond line")
        return real(name, package)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    monkeypatch.setattr(doctor, "_requirements", lambda name: [Requirement("absent-package>=1")] * (name == "densecl"))
    assert main(["doctor"]) == 2
    out = capsys.readouterr().out
    assert "✗ import torchvision fails: operator torchvision::nms does not exist\n" in out
    assert "✗ absent-package is not installed" in out
    assert "pip install 'absent-package>=1'" in out
    assert out.splitlines()[-1] == "cannot run; 2 errors"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("packages", "packages"),
        ("devices", "devices"),
        ("data_sets", "data sets"),
        ("weights", "weights"),
        ("folders", "folders"),
    ],
)
def test_a_part_that_breaks_is_said_and_the_others_are_looked_at(name, part, monkeypatch):
    def fall(*_arguments):
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(doctor, name, fall)
    found = doctor.examine()
    (broken,) = (finding for finding in found if "cannot be looked at" in finding.text)
    assert broken.part == part
    assert broken.text == "cannot be looked at: ZeroDivisionError: oh"
    assert len({finding.part for finding in found}) == 7


def test_a_broken_recipe_of_ones_own_is_an_error_that_names_the_file(tmp_path, capsys):
    (tmp_path / "mine" / "strategies").mkdir(parents=True)
    (tmp_path / "mine" / "strategies" / "x.toml").write_text("name = 3")
    assert main(["doctor", "--catalogue", str(tmp_path / "mine")]) == 2
    assert "x.toml" in capsys.readouterr().out


def test_folders_that_are_wrong_full_or_read_only_are_problems(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "not there"))
    assert any("there is no such folder" in text for text in texts(doctor.folders(), "problem"))
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 << 20))
    assert len(texts(doctor.folders(), "problem")) == 3
    monkeypatch.setattr(os, "access", lambda *_: False)
    levels = [(finding.level, finding.text.split()[0]) for finding in doctor.folders()]
    assert levels == [("problem", "cache"), ("note", "data"), ("problem", "results")]


def test_the_cache_is_measured(tmp_path):
    (tmp_path / "cache" / "banks").mkdir(parents=True)
    (tmp_path / "cache" / "banks" / "x").write_bytes(bytes(3 << 20))
    assert any("cache" in text and "(3 MiB)" in text for text in texts(doctor.folders()))


def test_a_gpu_that_torch_cannot_use_is_a_problem(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "DRIVER", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert any("build without CUDA" in text for text in texts(doctor.devices(), "problem"))
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    assert any("(CUDA 12.4) cannot use it" in text for text in texts(doctor.devices(), "problem"))
