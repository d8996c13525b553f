"""The preview of a run, and the key of a shared first step."""

import re
import shutil
from pathlib import Path

import pytest

from data_trees import few_drawn
from densecl.cli import main
from densecl.runner import share

PACKAGE = Path(share.__file__).parents[1]


@pytest.mark.parametrize(("strategy", "iterations"), [("packnet", (15, 15, 15)), ("resblock", (15, 10, 10))])
def test_previews_count_the_iterations_that_a_method_adds(tmp_path, monkeypatch, capsys, strategy, iterations):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    few_drawn(monkeypatch, 12, 4, 6)
    assert main(["run", "-b", "shapes-3tasks", "-s", strategy, "--dry-run", "--set", "training.iterations=10"]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^ +(\d+) +\d+ +\d+ +\d+ +(\d+) ", out, re.MULTILINE)
    assert rows == [(str(step), str(count)) for step, count in enumerate(iterations)]
    assert f"training   {sum(iterations)} iterations" in out
    plan = f'benchmarks = ["shapes-3tasks"]\nstrategies = ["{strategy}"]\nset = ["training.iterations=10"]\n'
    (tmp_path / "plan.toml").write_text(plan)
    assert main(["sweep", "plan.toml", "--dry-run"]) == 0
    assert re.search(rf"{strategy} .* to do +{sum(iterations)} ", capsys.readouterr().out)


@pytest.mark.parametrize("file", ["masking/packnet.py", "metrics/confusion.py", "runner/build.py", "training/loop.py"])
def test_a_change_of_any_file_of_the_package_makes_another_first_step(tmp_path, monkeypatch, file):
    shutil.copytree(PACKAGE, tmp_path / "densecl", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(share.densecl, "__file__", str(tmp_path / "densecl" / "__init__.py"))
    before = share.source_hash.__wrapped__()
    with (tmp_path / "densecl" / file).open("a") as changed:
        changed.write("# changed\n")
    assert share.source_hash.__wrapped__() != before
