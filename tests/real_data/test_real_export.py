"""Label maps of real runs, scored as those of another code, give the runs' own matrices in every step."""

import os
import re
import shlex
from pathlib import Path

import pytest

from densecl.cli import main
from densecl.records.record import read_record
from tiny_runs import BACKBONE, flags

SHARED = Path(os.environ.get("DENSECL_SHARED") or Path(__file__).parents[3] / "shared") / "data"
TINY = ("training.iterations=2", "training.batch=4", "training.crop=32", "evaluation.size=48", "evaluation.batch=64")
pytestmark = [
    pytest.mark.skipif(not (SHARED / "voc-mini").is_dir(), reason="no real data here"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(autouse=True)
def _environment(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "real-cache"))
    monkeypatch.setenv("DENSECL_DATA", str(SHARED))


@pytest.mark.parametrize(("benchmark", "steps"), [("voc15-5", 2), ("camvid6-1", 6)])
def test_exported_maps_score_as_the_run_did_to_the_last_pixel(tmp_path, capsys, benchmark, steps):
    words = ["run", "-b", benchmark, "-s", "finetune", "--backbone", BACKBONE, "--device", "cpu", "--quiet"]
    assert main([*words, *flags(*TINY), "--output", str(tmp_path / "results")]) == 0
    (path,) = (tmp_path / "results").rglob("result.json")
    capsys.readouterr()
    assert main(["export", str(path.parent), "--predictions", str(tmp_path / "maps")]) == 0
    command = re.search(r"score them: densecl (.*)", capsys.readouterr().out)[1]
    assert main([*shlex.split(command), "--output", str(tmp_path / "foreign")]) == 0
    (foreign,) = (tmp_path / "foreign").rglob("result.json")
    ours, theirs = (read_record(place).steps for place in (path, foreign))
    assert len(ours) == steps
    assert [step.evaluations for step in ours] == [step.evaluations for step in theirs]
