"""The leaderboard: the ranking of every benchmark, with what rows are filtered by."""

import re
import time

import pytest

from densecl.cli import main
from densecl.records.record import find_records
from densecl.report.gather import benchmarks
from densecl.report.grids import ranking
from densecl.report.leaderboard import board, memory_class, protocol_of, render
from many_records import write_records
from report_runs import COMMITTED, committed

MIB = 2**20


def test_its_rows_are_those_of_the_ranking_with_what_the_record_says_was_kept():
    (benchmark,) = benchmarks(find_records(COMMITTED)[0])
    grid, plain = board(benchmark), ranking(benchmark)
    assert [line.rank for line in grid.lines] == [line.rank for line in plain.lines]
    at = [head.text for head in grid.heads].index("kept MiB")
    for line in grid.lines:
        most = [max(step.stored_bytes for step in record.steps) for record in line.member.records]
        assert line.cells[at].value == pytest.approx(sum(most) / len(most))
        assert line.tags["backbone"] == "bisenet"
        assert line.tags["protocol"] == "overlapped, plop2021"


def test_memory_has_classes_with_clear_ends():
    assert [memory_class(size) for size in (None, 0, 1, MIB, MIB + 1, 10 * MIB, 100 * MIB, 101 * MIB)] == [
        "not known", "nothing", "up to 1 MiB", "up to 1 MiB", "up to 10 MiB", "up to 10 MiB", "up to 100 MiB",
        "more than 100 MiB",
    ]  # fmt: skip


def test_a_stream_that_does_not_say_its_protocol_is_shown(tmp_path):
    committed(tmp_path, 0, change={"stream": {}})
    (run,) = find_records(tmp_path)[0]
    assert protocol_of(run.record) == "not stated"
    assert ">not stated<" in render([run], source="r")[0]


def test_folders_that_are_kept_apart_are_shown_too_and_deeper_ones_are_not(tmp_path, capsys):
    committed(tmp_path / "embedded", 0)
    (tmp_path / "embedded" / ".apart").touch()
    committed(tmp_path / "own" / "deeper", 1)
    (tmp_path / "own" / "deeper" / ".apart").touch()
    out = tmp_path / "board.html"
    assert main(["report", str(tmp_path), "--leaderboard", "-o", str(out)]) == 0
    assert "1 run of 1 set-up" in out.read_text(encoding="utf-8")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 2
    assert "name" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--leaderboard", "--rows", "3", "-o", str(tmp_path / "r.html")]) == 2
    assert "leave out --rows" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_row_names_the_bundle_that_it_came_in(tmp_path):
    run, community = committed(tmp_path / "runs", 0), tmp_path / "results" / "community"
    committed(tmp_path / "results" / "own", 3)
    community.mkdir()
    (community / ".apart").touch()
    assert main(["submit", str(run), "-o", str(tmp_path / "theirs.zip"), "--author", "A. Author"]) == 0
    assert main(["check-results", str(community), "--add", str(tmp_path / "theirs.zip")]) == 0
    out = tmp_path / "board.html"
    assert main(["report", str(tmp_path / "results"), "--leaderboard", "-o", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert "2 runs of" in page
    assert page.count("<td>theirs</td>") == 1


def test_names_from_files_stay_text_in_cells_tags_and_filters(tmp_path):
    evil = '"><script>alert(1)</script>'
    committed(tmp_path, 0, strategy=evil, backbone=evil, benchmark=evil, change={"stream": {"setting": evil}})
    text, _ = render(find_records(tmp_path)[0], source=evil)
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)") > 5


def test_what_cannot_be_read_is_named(tmp_path):
    committed(tmp_path, 0)
    (committed(tmp_path, 1) / "result.json").write_text("{")
    found, faults = find_records(tmp_path)
    text, notes = render(found, list(map(str, faults)), source="r")
    assert len(notes) == 1
    assert "1 thing could not be shown" in text


def test_four_hundred_set_ups_take_seconds_and_five_megabytes_at_most(tmp_path):
    """At the pace of half a minute for two thousand records."""
    write_records(tmp_path / "runs", 400)
    before = time.process_time()
    assert main(["report", str(tmp_path / "runs"), "--leaderboard", "-o", str(tmp_path / "b.html")]) == 0
    assert time.process_time() - before < 6
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 5_000_000
    assert len(re.findall(r"<tr[^>]* data-backbone=", page)) == 400
