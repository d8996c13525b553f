"""What the README shows works: its method of one's own, and every command it names."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from tiny_runs import run_words

from densecl.cli import app, main
from densecl.reporting.record import read_record
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.spec import parse_one

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
INLINE = [
    code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
]
LINES = [line.split("#")[0].strip() for kind, block in BLOCKS if kind != "python" for line in block.splitlines()]
COMMANDS = [line for line in [*LINES, *INLINE] if line.startswith("densecl ")]
OPTIONS = sorted({word.split()[0].split("=")[0] for word in INLINE if word.startswith("--")})
PYTHON = [block for kind, block in BLOCKS if kind == "python"]


def parsed(command):
    """(name of the command, its options) as typer reads them; nothing is run."""
    group = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    with group.make_context("densecl", [words[0], *words[1:]], resilient_parsing=True) as context:
        name, found, rest = group.resolve_command(context, words)
        if hasattr(found, "resolve_command"):
            with found.make_context(name, list(rest), parent=context, resilient_parsing=True) as inner:
                name, found, rest = found.resolve_command(inner, rest)
    assert found is not None, f"there is no command {name}"
    if "[" in command or "..." in command:
        return name, {}
    with found.make_context(name, list(rest)) as inner:
        return name, dict(inner.params)


def test_the_readme_shows_commands_and_one_method():
    assert len(COMMANDS) > 8
    assert len(PYTHON) == 1


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_exists_with_its_options(command):
    name, options = parsed(command)
    if name == "run" and options and "mine.py" not in options["strategy"]:
        make_plan(
            options["benchmark"],
            options["strategy"],
            backbone=options["backbone"],
            assignments=options["assignments"] or (),
            device="cpu",
        )


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_that_the_readme_names_exists(option):
    group = typer.main.get_command(app)
    commands = [*group.commands.values(), *group.commands["data"].commands.values()]
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
    assert main(["evaluate", str(path.parent)]) == 0
    assert main(["table", "results"]) == 0
    assert "Mine" in capsys.readouterr().out
