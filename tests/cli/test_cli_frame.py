import io
import os
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

import densecl
import fresh_process
from densecl import cli
from densecl.cli import main
from densecl.errors import SettingError
from densecl.records.record import Evaluation, Record, StepRecord
from densecl.terminal import wrapped

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "pydantic", "numpy", "avalanche", "torchvision", "timm", "scipy")


def call(*arguments, cwd=None, env=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(
        [sys.executable, "-m", "densecl", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=60,
    )


def imported(code):
    probe = f"{code}\nimport sys\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True)
    return result.stdout.splitlines()[-1].split()[1:]


def write_record(folder, strategy="mib", seed=0):
    evaluation = Evaluation(task="segmentation", metrics={"miou": {}, "iou": [0.9, 0.5], "forgetting": None})
    step = StepRecord(step=0, task="segmentation", new_classes=[1], iterations=1, seconds=1, evaluations=[evaluation])
    Record(
        densecl="0.1.0",
        benchmark="toy",
        strategy=strategy,
        backbone="bisenet",
        seed=seed,
        hash="0",
        status="finished",
        settings={},
        environment={},
        class_names=["background", "a"],
        has_background=True,
        planned_steps=[[1]],
        steps=[step],
    ).write(folder / strategy / f"s{seed}" / "result.json")


@pytest.mark.parametrize(
    "code",
    [
        "import densecl; densecl.__version__; dir(densecl)",
        "import densecl.settings.grammar",
        "from densecl.cli import main; main(['--help'])",
        "from densecl.cli import main; main(['--version'])",
    ],
)
def test_what_must_be_instant_imports_nothing_heavy(code):
    assert imported(code) == []


def test_the_help_of_a_command_imports_nothing_that_typer_does_not():
    assert set(imported("from densecl.cli import main; main(['table', '--help'])")) <= {"pydantic"}


def test_the_table_needs_no_torch(tmp_path):
    write_record(tmp_path)
    assert "torch" not in imported(f"from densecl.cli import main; assert main(['table', {str(tmp_path)!r}]) == 0")


def test_help_takes_less_than_a_second():
    call("--help")  # compiles what was not compiled
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = call("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert result.returncode == 0
    assert "table" in result.stdout
    assert min(times) < 1.0


def test_the_version_is_that_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert densecl.__version__ == project["version"]
    assert call("--version").stdout == f"densecl {project['version']}\n"


def test_no_arguments_say_what_to_do_first():
    result = call()
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    for command in ("densecl run -b shapes15-5 -s mib", "densecl table results", "densecl --help"):
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel"], "No such command 'tabel'"),
        (["table", "--colour"], r"No such option:? '?--colour\b"),
        (["table", "absent"], "the folder absent does not exist"),
        (["table", "."], r"it holds no result\.json"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(arguments, message, tmp_path):
    result = fresh_process.answer(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("densecl: ")
    assert result.stderr.count("\n") == 1
    assert re.search(message, result.stderr), result.stderr


def test_a_long_message_is_not_wrapped(monkeypatch, capsys):
    def fails(**_):
        raise SettingError("x " * 300 + "\nend", "hint")

    monkeypatch.setattr(cli, "app", fails)
    assert cli.main(["anything"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fails(**_):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(ZeroDivisionError):
        cli.main(["anything"])


def test_an_interrupt_in_a_command_is_one_line_and_130(monkeypatch, capsys):
    app = typer.Typer(cls=cli.Group, pretty_exceptions_enable=False)
    app.callback()(lambda: None)

    @app.command("stop")
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", app)
    assert cli.main(["stop"]) == 130
    assert capsys.readouterr().err == "densecl: interrupted\n"


def in_an_error(**_):
    raise ValueError("in a serializer") from KeyboardInterrupt()


def alone(**_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [alone, in_an_error])
def test_an_interrupt_anywhere_else_is_130_too(monkeypatch, capsys, interrupted):
    monkeypatch.setattr(cli, "app", interrupted)
    assert cli.main(["x"]) == 130
    assert capsys.readouterr().err == "densecl: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_closed_pipe_is_quiet(tmp_path):
    for index in range(20):
        write_record(tmp_path, f"strategy{index}" * 20)
    command = f'"{sys.executable}" -m densecl table "{tmp_path}" --format csv | true'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment, timeout=60)
    assert result.stderr == ""


def test_broken_records_are_named_and_the_others_still_shown(tmp_path):
    write_record(tmp_path, "mib")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text("{")
    result = fresh_process.answer("table", str(tmp_path))
    assert result.returncode == 0
    assert "mib" in result.stdout
    assert str(tmp_path / "bad" / "result.json") in result.stderr
    assert result.stderr.count("\n") == 1


def test_nothing_but_broken_records_is_an_error(tmp_path):
    (tmp_path / "result.json").write_text("{")
    result = fresh_process.answer("table", str(tmp_path))
    assert result.returncode == 2
    assert "none of its records can be read" in result.stderr


@pytest.mark.parametrize(
    ("name", "start"), [("t.md", "###"), ("t.csv", "benchmark,"), ("t.tex", "%"), ("t.txt", "toy")]
)
def test_the_suffix_of_the_output_file_chooses_the_format(tmp_path, name, start):
    write_record(tmp_path / "runs")
    result = fresh_process.answer("table", str(tmp_path / "runs"), "-o", str(tmp_path / name))
    assert result.returncode == 0
    assert (tmp_path / name).read_text().startswith(start)
    assert result.stdout == ""


def test_an_unknown_format_writes_nothing(tmp_path):
    write_record(tmp_path / "runs")
    result = fresh_process.answer("table", str(tmp_path / "runs"), "--format", "html", "-o", str(tmp_path / "t.html"))
    assert result.returncode == 2
    assert not (tmp_path / "t.html").exists()


def test_an_ascii_terminal_is_no_reason_to_fail(tmp_path):
    write_record(tmp_path, seed=0)
    write_record(tmp_path, seed=1)
    result = call("table", str(tmp_path), env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert "50.0" in result.stdout


def test_unknown_public_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = densecl.nonsense


@pytest.mark.parametrize("name", densecl.__all__)
def test_every_public_name_resolves(name):
    assert getattr(densecl, name) is not None
    assert name in dir(densecl)


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_breaks_lines_between_words_below_their_last_column(monkeypatch):
    text = (
        "name  one two three four five six seven eight nine\n  short\n1  run  /a/very/long/path/that/is/never/broken/s0"
    )
    assert wrapped(text) == text  # a file keeps its lines
    monkeypatch.setattr("sys.stdout", Screen())
    monkeypatch.setenv("COLUMNS", "40")
    assert wrapped(text).split("\n") == [
        "name  one two three four five six seven",
        "      eight nine",
        "  short",
        "1  run",
        "   /a/very/long/path/that/is/never/broken/s0",
    ]


def test_a_list_says_the_summary_of_splits_once(capsys):
    assert main(["list", "benchmarks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.strip() == "shapes15-5s"]
    assert sum("Pascal VOC 2012, class-incremental" in line for line in lines) == 1


def test_values_of_benchmarks_are_shown_as_they_can_be_set(capsys):
    assert main(["show", "plop"]) == 0
    assert "on ade*    strategy.pod=0.001, strategy.pod_logits=1e-05" in capsys.readouterr().out.splitlines()
