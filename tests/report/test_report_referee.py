"""The report's parts that a referee reads: what rows lack, how stable their order is, why probed runs forgot."""

import json
import re

import numpy as np
import pytest

from densecl.records.probed import Probed
from densecl.records.record import find_records, read_record
from densecl.report import referee
from densecl.report.charts import Axes, Bar, stacked
from densecl.report.gather import benchmarks
from densecl.report.page import render
from densecl.report.style import style
from densecl.tables import honest, stability
from report_runs import COMMITTED, committed

PAGE = {"source": "runs"}


def with_probe(folder, **changes):
    """A probe whose linear head sees what the run's own saw: all that is lost is then the features'."""
    record = read_record(folder / "result.json")
    probes = [step.evaluations[0].confusion for step in record.steps]
    nothing = [[[0] * 21] * 21] * len(probes)
    taken = [matrix[0] for matrix in nothing]
    probed = Probed(run=record.hash, gamma=1.0, images=2000, probes=probes, unused=nothing, taken=taken)
    probed.model_copy(update=changes).write(folder)
    return record


def test_what_rows_have_and_lack_is_what_the_command_prints():
    (benchmark,) = benchmarks(find_records(COMMITTED)[0])
    grid = referee.examined(benchmark)
    listing = honest.listing(*honest.examine_benchmark(benchmark.scored, benchmark.records))
    assert [tuple(cell.text for cell in line.cells) for line in grid.lines] == [
        (*line.cells, *line.below) for line in listing.lines
    ]
    headings = [head.text for head in grid.heads]
    assert headings == [*listing.headings, *listing.below]
    assert grid.lines[0].cells[headings.index("all")].value == pytest.approx(0.643, abs=0.001)


def test_the_stability_is_what_the_command_prints():
    (benchmark,) = benchmarks(find_records(COMMITTED)[0])
    found = stability.stability(benchmark.records)[0]
    grid = referee.order(benchmark, pytest.fail)
    assert [tuple(cell.text for cell in line.cells) for line in grid.lines] == [
        line.cells for line in stability.listing(found).lines
    ]
    assert grid.notes == stability.remarks(found)


def test_what_probed_rows_lost_is_the_mean_over_old_classes(tmp_path):
    records = [with_probe(committed(tmp_path, index)) for index in (0, 1)]
    (benchmark,) = benchmarks(find_records(tmp_path)[0])
    found = referee.anatomy(benchmark, pytest.fail)
    names = [head.text for head in found.grid.heads]
    wanted = {}
    for record in records:
        iou = np.array([s.evaluations[0].metrics["iou"] for s in record.steps], dtype=float)
        learnt = {label: iou[k, label] for k, step in enumerate(record.steps[:-1]) for label in step.new_classes}
        wanted.setdefault(record.strategy, []).append(np.mean([v - iou[-1, label] for label, v in learnt.items()]))
    assert sum(line.cells[0].value for line in found.grid.lines) == 2
    for line in found.grid.lines:
        cells = dict(zip(names, line.cells, strict=True))
        if line.cells[0].value == len(wanted[line.member.row.strategy]):
            assert cells["lost"].value == pytest.approx(np.mean(wanted[line.member.row.strategy]))
        assert cells["features"].value == pytest.approx(cells["lost"].value)
        assert cells["head"].value == pytest.approx(0, abs=1e-12)


def test_the_page_has_the_parts_and_names_a_probe_that_cannot_be_read(tmp_path):
    folders = [committed(tmp_path, index) for index in (0, 1, 2)]
    for folder in folders[:2]:
        with_probe(folder)
    with_probe(folders[2], run="00000000")
    text, left_out = render(find_records(tmp_path)[0], **PAGE)
    for heading in ("What a referee asks", "How stable the order is", "Why they forgot"):
        assert heading in text
    assert any("another run" in note for note in left_out)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_without_probes_the_page_has_no_such_part(tmp_path):
    folder = committed(tmp_path, 0)
    text, left_out = render(find_records(tmp_path)[0], **PAGE)
    assert "Why they forgot" not in text
    assert "How stable the order is" not in text  # one row
    assert left_out == []
    content = json.loads((folder / "result.json").read_text())
    assert content["strategy"] in text


def test_parts_of_a_bar_end_at_their_sum():
    bars = [Bar(style(0), (3.0, 2.0, -1.0), "mib"), Bar(style(1), (0.0, 0.0, 0.0), "plop")]
    svg = stacked("x", "title", Axes("points", ""), bars, ("one", "two", "three"))
    assert svg.count("three") == 1
    assert ">mib<" in svg
    assert ">plop<" in svg
