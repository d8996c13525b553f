"""However many runs there are, a page is made in seconds and stays small; more is shown by choice."""

import re
import time

import pytest

from densecl.cli import main
from densecl.report import charts
from densecl.report.gather import Benchmark
from densecl.report.page import ALL_ROWS, BENCHMARKS, ROWS, detailed
from many_records import write_records


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a page asks for, by kind; none is drawn, which is what takes long."""
    figures = {"heat_map": 0, "lines": 0, "scatter": 0, "agreement": 0, "bars": 0}

    def count(kind):
        def draw(*_args, **_options):
            figures[kind] += 1
            return "<svg role='img' aria-label='a figure'></svg>"

        return draw

    for kind in figures:
        monkeypatch.setattr(charts, kind, count(kind))
    return figures


def report(folder, *words):
    assert main(["report", str(folder), "-o", str(folder.parent / "r.html"), *words]) == 0
    return (folder.parent / "r.html").read_text(encoding="utf-8")


def ranks(page):
    """The number of rows of each section's first table."""
    sections = page.split("<h2 id=")[2:-1]  # after the answers
    return [section.partition("</table>")[0].count("<tr") - 1 for section in sections]


def test_figures_and_details_are_of_the_best_rows_and_all_are_ranked(tmp_path, drawn):
    write_records(tmp_path / "runs", 80)
    page = report(tmp_path / "runs")
    assert ranks(page) == [80]
    assert f"figures, other tables and settings have the best {ROWS} of 80" in page
    assert page.count('<details class="provenance"') == ROWS
    assert drawn == {
        "heat_map": ROWS - ROWS // 4,
        "lines": 3,
        "scatter": 2,
        "agreement": 0,
        "bars": 0,
    }  # joint has no steps
    assert page.count(">joint<") > 10  # what has no rank is among them
    fewer = report(tmp_path / "runs", "--rows", "5")
    assert ranks(fewer) == [80]
    assert fewer.count('<details class="provenance"') == 5
    all_of_them = report(tmp_path / "runs", "--rows", "1000")
    assert all_of_them.count('<details class="provenance"') == 80
    assert "are ranked; figures" not in all_of_them


def test_many_benchmarks_share_what_a_page_may_draw(tmp_path, drawn):
    write_records(tmp_path / "runs", 3 * 16 * 12, benchmarks=12)
    page = report(tmp_path / "runs")
    assert ranks(page) == [48] * 12
    assert page.count("Its ranking alone is shown") == 12 - BENCHMARKS
    assert page.count('<details class="provenance"') == ALL_ROWS // 2 // BENCHMARKS * BENCHMARKS
    assert drawn["lines"] == 3 * BENCHMARKS
    assert drawn["heat_map"] <= ALL_ROWS
    chosen = report(tmp_path / "runs", "-b", "made11-15-1")
    assert ranks(chosen) == [48]
    assert chosen.count('<details class="provenance"') == ROWS


def test_an_unknown_benchmark_or_no_row_is_refused(tmp_path, drawn, capsys):
    write_records(tmp_path / "runs", 2)
    for words, message in ((["-b", "made1-15-1"], "did you mean 'made0-15-1'"), (["--rows", "0"], "--rows")):
        assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "r.html"), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_the_limits_are_shared_fairly():
    class Made(Benchmark):
        def __init__(self, name, rows):
            object.__setattr__(self, "slug", name)
            object.__setattr__(self, "members", (None,) * rows)
            object.__setattr__(self, "records", (None,) * rows)

        def best(self, count):
            return min(count, len(self.members))

    assert detailed([Made("a", 100)]) == [ROWS]
    assert detailed([Made("a", 20), Made("b", 20), Made("c", 20)]) == [20, 20, 20]
    assert detailed([Made("a", 50), Made("b", 5), Made("c", 50), Made("d", 50)]) == [22, 5, 22, 22]
    many = detailed([Made(str(k), 10 + k) for k in range(20)])
    assert many == [None] * (20 - BENCHMARKS) + [ALL_ROWS // 2 // BENCHMARKS] * BENCHMARKS
    assert detailed([Made("a", 100), Made("b", 3)], 40) == [40, 3]


@pytest.mark.parametrize(("set_ups", "seeds"), [(400, 5)])
def test_two_thousand_records_take_half_a_minute_and_five_megabytes_at_most(tmp_path, set_ups, seeds, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    write_records(tmp_path / "runs", set_ups, seeds)
    before = time.process_time()
    page = report(tmp_path / "runs")
    assert time.process_time() - before < 30
    assert len(page.encode()) < 5_000_000
    assert ranks(page) == [set_ups]
    assert len(re.findall("IoU lost after the last step", page)) > 10
