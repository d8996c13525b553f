"""What the README shows works: its method of one's own, and every command it names."""

import shlex
from pathlib import Path

import pytest
import typer.main

from densecl.cli import app, main
from densecl.records.record import read_record
from densecl.runner.methods import parse_method
from densecl.settings.grammar import parse_one
from documents import blocks, commands, inline, parsed, resolve
from tiny_runs import run_words

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = commands(TEXT)
OPTIONS = sorted({word.split()[0].split("=")[0] for word in inline(TEXT) if word.startswith("--")})
PYTHON = [block.content for block in blocks(TEXT) if block.kind == "python"]


def test_the_readme_shows_commands_and_one_method():
    assert len(COMMANDS) > 8
    assert len(PYTHON) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command):
    name, options = parsed(command)
    if name == "run" and options and "mine.py" not in options["strategy"]:
        resolve(options)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_that_the_readme_names_exists(option):
    group = typer.main.get_command(app)
    commands = [group.get_command(None, name) for name in group.commands]
    commands += group.get_command(None, "data").commands.values()
    assert any(option in parameter.opts for command in commands for parameter in command.params)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    folder = tmp_path / "anywhere"
    folder.mkdir()
    (folder / "mine.py").write_text(PYTHON[0])
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.usefixtures("one_thread", "mine")
def test_the_method_of_the_readme_passes_its_check(capsys):
    assert main(["check", "mine.py:Mine"]) == 0
    assert capsys.readouterr().out.startswith("✓ mine.py:Mine works")


@pytest.mark.usefixtures("one_thread")
def test_the_method_of_the_readme_runs_and_is_scored_again(mine, voc, capsys):
    spec = next(word for command in COMMANDS for word in shlex.split(command) if word.startswith("mine.py:Mine("))
    assert main(run_words(voc, Path("results"), "--quiet", strategy=spec)) == 0
    (path,) = mine.rglob("result.json")
    record = read_record(path)
    assert (record.status, record.strategy, record.resumable) == ("finished", "Mine", True)
    given = dict(parse_one(spec, "strategy").arguments)
    assert given
    values = record.settings["strategy_values"]
    assert {key: values[key] for key in given} == given
    assert set(values) == set(parse_method("mine.py:Mine").strategy.resolved())
    capsys.readouterr()
    assert main(["evaluate", str(path.parent)]) == 2  # a file that a record names is not run
    assert main(["evaluate", str(path.parent), "--strategy", "mine.py:Mine"]) == 0
    assert main(["table", "results"]) == 0
    assert "Mine" in capsys.readouterr().out
