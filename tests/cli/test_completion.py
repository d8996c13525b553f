"""What the shell offers, asked as the shells ask."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fresh_process
from densecl.cli import completion
from densecl.settings.catalogue import backbones, entries
from densecl.tables import groupings

ROOT = Path(__file__).parents[2]


def environment(**variables):
    python = Path(sys.executable).parent
    path = f"{python}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DENSECL_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PATH": path, **variables}


def offered(line, cwd=ROOT, **variables):
    """Ask for the words that bash is offered as the last one of a line."""
    words = line.split(" ")
    asked = {"_DENSECL_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    result = fresh_process.answer(cwd=cwd, env=environment(**asked, **variables))
    assert result.stderr == ""
    return result.stdout.split()


def names(kind, part):
    return [entry.name for entry in entries(kind) if part is None or (entry.kind == "plugin") is part]


def run_folder(place):
    place.mkdir(parents=True)
    (place / "result.json").write_text("{}")
    (place / "weights").mkdir()


def test_names_of_the_catalogue_are_offered():
    assert offered("densecl run -b ") == names("benchmarks", None)
    assert offered("densecl run --benchmark voc15") == [n for n in names("benchmarks", None) if n.startswith("voc15")]
    assert offered("densecl table -b camvid6-") == [n for n in names("benchmarks", None) if n.startswith("camvid6-")]
    assert offered("densecl run -s ") == names("strategies", False)
    assert offered("densecl run --backbone ") == list(backbones())
    assert "mib" in offered("densecl show mi")
    assert offered("densecl data verify ca") == ["camvid"]
    assert offered("densecl list st") == ["strategies"]
    assert sorted(offered("densecl table --group ")) == groupings.names()
    assert offered("densecl table --group with") == ["with-bg"]


def test_after_a_plus_plugins_are_offered_that_are_not_named_yet():
    plugins = names("strategies", True)
    assert offered("densecl run -s mib+deep") == ["mib+deepinversion"]
    assert offered("densecl run -s mib+") == [f"mib+{name}" for name in plugins]
    assert offered("densecl run -s mib+replay+") == [f"mib+replay+{name}" for name in plugins if name != "replay"]
    assert offered("densecl run -s mib(distillation=1e+1)+rep") == ["mib(distillation=1e+1)+replay"]


def test_recipes_of_ones_own_are_offered(tmp_path):
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "mine.toml").write_text('name = "minewell"\nclass = "mine.py:Mine"\nsummary = ""\n')
    assert offered("densecl run -s minew", DENSECL_CATALOGUE=str(tmp_path)) == ["minewell"]
    assert offered(f"densecl run --catalogue {tmp_path} -s minew") == ["minewell"]
    (tmp_path / "strategies" / "mine.toml").write_text("not TOML")
    assert offered("densecl run -s mi", DENSECL_CATALOGUE=str(tmp_path)) == []  # nothing, and no error


def test_runs_are_offered_by_their_folders(tmp_path):
    for name in ("results/voc15-5/mib/b/s0-11", "results/voc15-5/mib/b/s1-22", "results/toy/ewc/b/s0-33"):
        run_folder(tmp_path / name)
    (tmp_path / "results" / "voc15-5" / "notes").mkdir()
    voc = ["results/voc15-5/mib/b/s0-11", "results/voc15-5/mib/b/s1-22"]
    assert offered("densecl evaluate ", tmp_path) == ["results/toy/ewc/b/s0-33", *voc]
    assert offered("densecl evaluate results/v", tmp_path) == voc
    assert offered("densecl bank results/voc15-5/mib/b/s1", tmp_path) == voc[1:]
    assert offered(f"densecl evaluate {tmp_path}/results/t", ROOT) == [f"{tmp_path}/results/toy/ewc/b/s0-33"]
    assert offered("densecl evaluate res", tmp_path)[0] == "results/toy/ewc/b/s0-33"
    assert offered("densecl evaluate nothing/here", tmp_path) == []
    assert offered("densecl evaluate results/voc15-5/n", tmp_path) == ["results/voc15-5/notes/"]


def test_a_folder_of_ones_home_stays_as_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run_folder(tmp_path / "results" / "s0")
    assert completion.runs("~/res") == ["~/results/s0"]


def test_many_runs_are_offered_quickly(tmp_path, monkeypatch):
    for k in range(600):
        run_folder(tmp_path / "results" / f"b{k % 20}" / f"s{k}")
    monkeypatch.chdir(tmp_path)
    begun = time.process_time()
    assert len(completion.runs("results/")) == completion.MOST
    assert time.process_time() - begun < 1.0


def test_completion_imports_neither_torch_nor_numpy_and_is_quick():
    code = (
        "import sys, time; begun = time.process_time()\n"
        "from densecl.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = [name for name in ('torch', 'numpy', 'avalanche', 'scipy') if name in sys.modules]\n"
        "print('LOADED', *heavy, file=sys.stderr); print('TOOK', time.process_time() - begun, file=sys.stderr)\n"
    )
    asked = {"_DENSECL_COMPLETE": "complete_bash", "COMP_WORDS": "densecl\nrun\n-s\nmib+deep", "COMP_CWORD": "3"}
    times = []
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(**asked), check=True
        )
        assert "mib+deepinversion" in result.stdout
        loaded, took = result.stderr.splitlines()[-2:]
        assert loaded == "LOADED"
        times.append(float(took.split()[1]))
    assert min(times) < 0.6  # 0.2 s of a processor that has nothing else to do


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script_that_is_installed(tmp_path):
    """The function that `--install-completion` puts into a shell, called as bash calls it."""
    command = tmp_path / "densecl"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m densecl "$@"\n')
    command.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    script = (
        "source <(_DENSECL_COMPLETE=source_bash densecl)\n"
        "complete -p densecl\n"
        "COMP_WORDS=(densecl run -s mib+deep); COMP_CWORD=3\n_densecl_completion densecl mib+deep -s\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    shown = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**environment(), "PATH": path}, check=True
    )
    assert "-F _densecl_completion densecl" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "mib+deepinversion"


def test_it_can_be_installed(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    command = f'"{sys.executable}" -m densecl --install-completion bash; true'
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment(HOME=str(tmp_path)), check=True
    )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_DENSECL_COMPLETE" in path.read_text() for path in files), result.stdout + result.stderr
