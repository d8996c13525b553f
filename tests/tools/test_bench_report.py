"""The bench's table and its command."""

import json

import pytest
import torch

from bench import KINDS, __main__
from bench.__main__ import main
from bench.rows import COST, Goal, Missing
from bench.table import environment, machine_lines, render, time_text
from bench_parts import a_row

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _no_data(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))  # drawn once for all tests
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "nothing"))


def test_the_table_says_which_way_is_better_and_what_is_met():
    speed = a_row(goal=Goal(ratio=2.5, memory=0.6), memory=0.3, note="half of it")
    text = render([speed, a_row(COST, 1.01, 1.0, goal=Goal(ratio=1.03)), Missing("no compiler", "losses")])
    assert "losses: times as fast as the reference (more is better)" in text
    assert "losses: cost over the bare limit (less is better)" in text
    assert "half of it" in text
    assert "2 ± 0, CPU 2, memory 0.3; goal ≥ 2.5, memory ≤ 0.6: NOT MET" in text
    assert "1.01 ± 0, CPU 1.01; goal ≤ 1.03: met" in text
    assert "left out of losses: no compiler" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_table_says_what_makes_its_figures_doubtful():
    machine = environment(torch.device("cpu")) | {"cores": 2}
    assert "other programs were running (load 4.0)" in machine_lines(machine | {"load": 4.0}, small=False)
    assert "other programs" not in machine_lines(machine | {"load": None}, small=False)
    assert "small sizes" in machine_lines(machine, small=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 us"), (1.5e-6, "1.5 us"), (0.9994e-3, "999 us"), (0.0123, "12.3 ms"), (1, "1 s"), (123.4, "123 s")],
)
def test_times_have_the_unit_that_suits_them(seconds, text):
    assert time_text(seconds) == text


def test_json_on_the_screen_is_json_alone_with_the_machine(capsys):
    assert main(["losses", "--small", "--repeats", "2", "--json"]) == 0
    shown = capsys.readouterr()
    assert "measuring losses" in shown.err
    written = json.loads(shown.out)
    assert written["small"] is True
    assert written["environment"].keys() >= {"cpu", "cores", "threads", "load", "torch", "device", "gpu", "python"}
    assert written["environment"]["threads"] == torch.get_num_threads()
    assert [line["kind"] for line in written["missing"]] == ["losses"]
    first = written["rows"][0]
    assert first.keys() == {
        "kind", "what", "names", "seconds", "sense", "ratio", "iqr", "processor", "turns", "memory", "goal", "note",
        "more_is_better", "met",
    }  # fmt: skip
    assert first["sense"] == "times as fast as the reference"
    assert first["turns"] == 2


def test_the_command_prints_a_table(capsys):
    assert main(["masking", "--small", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("densecl ")
    assert "masking: cost over the bare limit (less is better)" in out
    assert out.count("Times and ratios are medians") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["los"], "did you mean 'losses'"),
        (["losses", "--repeats", "0"], "--repeats"),
        (["losses", "--device", "cuda:9"], "cuda:9"),
        (["index", "--data", "absent"], "absent"),
    ],
)
def test_bad_words_are_refused_in_one_line(capsys, words, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert named in shown.err


def test_all_goes_through_the_kinds_and_drops_nothing(monkeypatch, capsys):
    monkeypatch.setattr(
        __main__, "measure", lambda kind, bench, small: iter([a_row(kind=kind), Missing("a line", kind)])
    )
    assert main(["--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in content["rows"]] == list(KINDS)
    assert [line["kind"] for line in content["missing"]] == list(KINDS)
