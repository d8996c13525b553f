"""The bench's table and its command."""

import json
from dataclasses import replace

import pytest
import torch

from bench import KINDS, suite
from bench.rows import Bench, Goal, Missing, Row, Sense
from bench.suite import Report
from bench.table import number, render, time_text
from bench_parts import a_row
from densecl.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _no_data(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))  # drawn once for all tests
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "nothing"))


def a_report(*found, load=0.1, **more):
    machine = {"densecl": "1", "torch": "2", "cpu": "CPU", "gpu": None, "cores": 2, "threads": 1, "load": load}
    made = [each for each in found if isinstance(each, Row)]
    return Report(machine, rows=made, missing=[each for each in found if isinstance(each, Missing)], **more)


def test_the_table_says_which_way_is_better_and_fits_80_columns():
    long = "a name of a form that is much longer than what there is room for in a narrow table"
    speed = replace(a_row(goal=Goal(ratio=2.5, memory=0.6), memory_ratio=0.3, note="half of it"), ours=long)
    text = render(a_report(speed, a_row(Sense.COST, 1.01, goal=Goal(ratio=1.03)), Missing("losses", "no compiler")))
    assert "losses: times as fast as the reference (more is better)" in text
    assert "losses: cost over the bare limit (less is better)" in text
    assert "[1] half of it" in text
    assert "NOT MET" in text
    assert "left out of losses: no compiler" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "\x1b" in render(a_report(speed), colour=True)


def test_the_table_says_what_makes_its_figures_doubtful():
    assert "other programs were running (load 4.0)" in render(a_report(a_row(), load=4.0))
    assert "other programs" not in render(a_report(a_row(), load=None))
    assert "small sizes" in render(a_report(a_row(), small=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 µs"), (1.5e-6, "1.5 µs"), (0.9994e-3, "999 µs"), (0.0123, "12.3 ms"), (1, "1 s"), (1234.5, "1234 s")],
)
def test_times_have_the_unit_that_suits_them(seconds, text):
    assert time_text(seconds) == text


@pytest.mark.parametrize(("ratio", "text"), [(4530.4, "4530"), (12.34, "12.3"), (1.006, "1.01"), (0.0421, "0.042")])
def test_ratios_have_the_digits_that_count(ratio, text):
    assert number(ratio) == text


def test_the_command_writes_json_with_the_machine(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main(["bench", "losses", "--small", "--repeats", "2", "-o", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("densecl ")
    assert "measuring losses" in shown.err
    written = json.loads(path.read_text())
    assert written["schema"] == suite.SCHEMA
    assert written["small"] is True
    assert written["environment"].keys() >= {"cpu", "cores", "threads", "load", "torch", "device", "gpu", "python"}
    assert written["environment"]["threads"] == torch.get_num_threads()
    assert [line["kind"] for line in written["missing"]] == ["losses"]
    first = written["rows"][0]
    assert first.keys() == {
        "kind", "what", "ours", "reference", "sense", "seconds", "reference_seconds", "ratio", "low", "high",
        "processor_ratio", "repeats", "memory_ratio", "goal", "note", "more_is_better", "met",
    }  # fmt: skip
    assert first["sense"] == "times as fast as the reference"
    assert first["repeats"] == 2


def test_the_command_prints_a_table(capsys):
    assert main(["bench", "masking", "--small", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("densecl ")
    assert "masking: cost over the bare limit (less is better)" in out
    assert out.count("Of each pair ours is above") == 1


def test_json_on_the_screen_is_json_alone(capsys):
    assert main(["bench", "masking", "--small", "--repeats", "1", "--json"]) == 0
    assert {each["kind"] for each in json.loads(capsys.readouterr().out)["rows"]} == {"masking"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["los"], "did you mean 'losses'"),
        (["losses", "--repeats", "0"], "--repeats"),
        (["losses", "--device", "cuda:9"], "cuda:9"),
        (["index", "--data", "absent"], "absent"),
        (["losses", "-o", "."], "is a folder"),
    ],
)
def test_bad_words_are_refused_in_one_line(capsys, words, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert named in shown.err


def test_all_goes_through_the_kinds_and_drops_nothing(monkeypatch, capsys):
    one = {kind: replace(a_row(), kind=kind) for kind in KINDS}
    monkeypatch.setattr(suite, "measure", lambda kind, bench, small: iter([one[kind], Missing(kind, "a line")]))
    heard = []
    report = suite.run(KINDS, Bench(1), finished=lambda kind, so_far: heard.append((kind, len(so_far.of(kind).rows))))
    assert [each.kind for each in report.rows] == list(KINDS)
    assert len(report.missing) == len(KINDS)
    assert heard == [(kind, 1) for kind in KINDS]
    assert main(["bench", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == len(KINDS)
