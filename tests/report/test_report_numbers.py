"""Numbers and figures of the report against independent computations."""

import base64
import io
import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from densecl.records.record import Found, find_records
from densecl.report import charts
from densecl.report.album import Album
from densecl.report.charts import SMALL, SPAN, Axes, Point, Series, limits
from densecl.report.comparison import compare
from densecl.report.gather import benchmarks
from densecl.report.grids import ranking
from densecl.report.labels import Box, placed, spread, width_of
from densecl.report.retention import Shares, by_step, lost, mean, shares
from densecl.report.sections import leaks
from densecl.report.strips import changes, shown_steps
from densecl.report.style import style
from published_rows import reported, run
from report_runs import COMMITTED, committed


@pytest.fixture(scope="module")
def found():
    return find_records(COMMITTED)[0]


@pytest.fixture(scope="module")
def shapes(found):
    (benchmark,) = benchmarks(found)
    return benchmark


# ---- numbers


def test_shares_of_a_small_matrix_by_hand():
    matrix = [[90, 5, 3, 2], [10, 70, 15, 5], [20, 0, 60, 20], [0, 0, 0, 50]]
    # classes 1 and 2 are old, 3 is new: 200 pixels, 130 kept, 30 background, 25 current, 15 the other old class
    assert shares(matrix, previous={0, 1, 2}, current=[3]) == Shares(0.65, 0.15, 0.125, 0.075)
    assert shares(matrix, previous={0}, current=[3]) is None
    assert shares(matrix, previous={1}, current=[]) == Shares(0.7, 0.1, 0.0, 0.2)


def test_shares_are_those_of_counting_pixel_by_pixel():
    rng = random.Random(3)
    pixels = [(rng.randrange(6), rng.randrange(6)) for _ in range(5000)]
    matrix = [[sum(pixel == (t, p) for pixel in pixels) for p in range(6)] for t in range(6)]
    old = [pixel for pixel in pixels if pixel[0] in (1, 2, 3)]
    found = shares(matrix, {1, 2, 3}, {4})
    assert found is not None
    assert found.kept == pytest.approx(sum(t == p for t, p in old) / len(old))
    assert found.background == pytest.approx(sum(p == 0 for _, p in old) / len(old))
    assert found.current == pytest.approx(sum(p == 4 for _, p in old) / len(old))
    assert sum(found) == pytest.approx(1)


def test_leakage_of_a_real_run_from_its_file(found):
    path, record = found[0]
    steps = json.loads(path.read_text())["steps"]
    result = by_step(record)
    assert sorted(result) == [1, 2, 3, 4, 5]
    for k in result:
        old = [label for step in steps[:k] for label in step["new_classes"]]
        matrix = np.array(steps[k]["evaluations"][0]["confusion"], dtype=float)[old]
        assert result[k].background == pytest.approx(matrix[:, 0].sum() / matrix.sum())
        assert result[k].current == pytest.approx(matrix[:, steps[k]["new_classes"]].sum() / matrix.sum())


def test_losses_of_classes_average_to_the_forgetting_that_training_recorded(found):
    for _, record in found[::7]:
        matrix = lost(record, range(1, 21), 6)
        for k, step in enumerate(record.steps):
            before = [label - 1 for earlier in record.steps[:k] for label in earlier.new_classes]
            recorded = step.evaluations[0].metrics["forgetting"]
            if k:
                assert np.nanmean(matrix[before, k]) == pytest.approx(recorded)
            assert (matrix[[label - 1 for label in step.new_classes], k] == 0).all()
        assert np.isnan(matrix[15:, 0]).all()


def test_the_mean_of_maps_leaves_out_what_is_not_known():
    result = mean([np.array([[0.1, np.nan]]), np.array([[0.3, np.nan]]), np.array([[np.nan, np.nan]])])
    assert result[0, 0] == pytest.approx(0.2)
    assert np.isnan(result[0, 1])


def test_ranking_has_the_interval_and_the_paired_test_of_scipy(shapes):
    grid = ranking(shapes)
    by, tested = (next(k for k, head in enumerate(grid.heads) if head.text == name) for name in ("all", "p, all"))
    values = {}
    for member in shapes.members:
        ious = {
            r.seed: np.mean([v for v in r.steps[-1].evaluations[0].metrics["iou"] if v is not None])
            for r in member.records
        }
        values[member.label] = ious
    means = [np.mean(list(values[line.member.label].values())) for line in grid.lines]
    assert means == sorted(means, reverse=True)
    assert [line.rank for line in grid.lines] == [str(k + 1) for k in range(len(grid.lines))]
    best = values[grid.lines[0].member.label]
    for line, expected in zip(grid.lines, means, strict=True):
        own = values[line.member.label]
        cell, test = line.cells[by], line.cells[tested]
        numbers = list(own.values())
        half = scipy.stats.t.ppf(0.975, len(numbers) - 1) * scipy.stats.sem(numbers)
        assert (cell.text, cell.spread) == (f"{100 * expected:.1f}", f"{100 * half:.1f}")
        common = sorted(own.keys() & best.keys())
        if line.rank == "1":
            assert test.text == "best"
        elif len(common) < 3:
            assert test.text == "–"
        else:
            p = scipy.stats.ttest_rel([own[s] for s in common], [best[s] for s in common]).pvalue
            assert test.value == pytest.approx(p)


def test_joint_and_what_is_told_the_task_stand_below_without_a_rank(tmp_path):
    committed(tmp_path, 0)
    committed(tmp_path, 1, strategy="joint")
    committed(tmp_path, 2, strategy="cheat", oracle="task")
    (benchmark,) = benchmarks(find_records(tmp_path)[0])
    lines = ranking(benchmark).lines
    assert lines[0].rank == "1"
    assert {(line.member.row.strategy, line.rank) for line in lines[1:]} == {("joint", ""), ("cheat", "")}
    assert not any(cell.best for line in lines[1:] for cell in line.cells)


def test_held_out_scores_are_a_section_of_their_own_without_a_rank(tmp_path):
    committed(tmp_path, 0)
    committed(tmp_path, 1)
    committed(tmp_path, 2, change={"data": {"validation": 0.2}})
    tests, tuned = benchmarks(find_records(tmp_path)[0])
    assert tuned.name == f"{tests.name} on held-out training images"
    assert tests.slug != tuned.slug
    assert (tests.is_ranked, tuned.is_ranked) == (True, False)
    grid = ranking(tuned)
    assert [line.rank for line in grid.lines] == [""]
    assert not any(head.text.startswith("p,") for head in grid.heads)
    assert not any(cell.best or cell.close for line in grid.lines for cell in line.cells)


def test_the_columns_after_the_last_step_add_up(shapes):
    _, grid = leaks(shapes)
    for line in grid.lines:
        assert sum(cell.value for cell in line.cells) == pytest.approx(1)


def test_changes_pixel_by_pixel():
    rng = np.random.default_rng(0)
    truth, first, last = (rng.integers(0, 3, (9, 7)) for _ in range(3))
    truth[0] = 255
    result = changes(truth, first, last)
    for place in np.ndindex(truth.shape):
        t, a, b = truth[place], first[place], last[place]
        expected = 0 if t == 255 or a == b else 1 if b == t else 2 if a == t else 3
        assert result[place] == expected


def test_reported_numbers_are_compared_only_where_the_protocol_agrees():
    ours = [Found(Path("a/result.json"), run(0.70, 0.50)), Found(Path("b/result.json"), run(0.72, 0.52, seed=1))]
    known = benchmarks(ours)
    same = compare(known, [reported()])
    assert same.plot is not None
    assert same.grid is not None
    shown = {line.cells[2].text: [cell.text for cell in line.cells[3:]] for line in same.grid.lines}
    assert shown["1-15"] == ["75.5", "71.0", "-4.5"]
    assert shown["16-20"] == ["49.4", "51.0", "+1.6"]
    other = compare(known, [reported(setting="disjoint")])
    assert other.plot is None
    assert "setting overlapped (there disjoint)" in " ".join(other.reasons[0][1])


# ---- looks


def test_looks_do_not_repeat_early():
    looks = [style(k) for k in range(28)]
    assert len({(one.colour, one.dash) for one in looks}) == 28
    assert len({(one.colour, one.marker) for one in looks}) == 28


@given(st.lists(st.floats(-100, 100), max_size=12), st.floats(0.1, 10))
def test_names_that_are_spread_keep_their_order_and_do_not_overlap(positions, gap):
    result = spread(positions, gap)
    order = sorted(range(len(positions)), key=lambda k: positions[k])
    placed = [result[k] for k in order]
    assert all(b - a >= gap * (1 - 1e-9) - 1e-9 for a, b in itertools.pairwise(placed))
    if all(b - a >= gap for a, b in itertools.pairwise(sorted(positions))):
        assert result == pytest.approx(positions)


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 1000)), min_size=1, max_size=10))
def test_an_axis_shows_all_means_and_makes_noise_no_cliff(points):
    shown = limits(points)
    means = [mean for mean, _ in points]
    assert shown.low < min(means) or shown.low == min(means) == 0
    assert max(means) < shown.high <= max(107, 2.5 * max(means))
    if shown.low > 0:  # then it is said
        assert f"starts at {shown.low:g}" in shown.words
        assert max(means) - min(means) >= SMALL
        assert shown.high - shown.low >= SPAN
    else:
        assert shown.words == ""


def test_an_axis_of_near_values_starts_at_zero_and_one_of_far_values_says_where_it_starts():
    assert limits([(70.0, None), (71.9, 0.5)]).low == 0
    assert limits([(70.0, None), (71.9, 0.5)]).words == ""
    assert limits([(70.0, 1.0), (76.0, 1.0)]).low == 65  # 10 points below the highest end, 77, at a multiple of 5
    assert limits([(70.0, 1.0), (76.0, 1.0)], shares=False).low == 0
    assert limits([(3.0, 400.0), (97.0, 400.0)]).high < 107


@given(st.lists(st.tuples(st.floats(30, 500), st.floats(20, 280)), min_size=1, max_size=12))
def test_names_beside_points_cover_no_other_name(places):
    field = Box(0, 0, 700, 300)
    names = [f"method {k}, frozen" for k in range(len(places))]
    boxes = placed(names, places, [Box(x - 4, y - 4, x + 4, y + 4) for x, y in places], field)
    for one, other in itertools.combinations(boxes, 2):
        assert one.overlap(other) < 1e-6
    for box, name in zip(boxes, names, strict=True):
        assert box.right - box.left == pytest.approx(width_of(name))


def test_overlap_by_hand():
    assert Box(0, 0, 4, 2).overlap(Box(3, 1, 9, 9)) == 1
    assert Box(0, 0, 4, 2).overlap(Box(4, 0, 5, 2)) == 0


def test_bars_start_at_zero_and_share_one_scale():
    svg = charts.bars("a < b", "%", [Point(style(0), 1, 80.0, 4.0, "one <"), Point(style(1), 1, 20.0, None, "two")])
    widths = [float(width) for width in re.findall(r'class="fill" style="width:([\d.]+)%', svg)]
    assert widths[0] / widths[1] == pytest.approx(4, abs=1e-3)
    assert "one &lt;" in svg
    assert svg.count("whisker") == 1


def test_at_most_seven_steps_are_shown_and_both_ends_are():
    for count in range(1, 60):
        chosen = shown_steps(count)
        assert chosen[0] == 0
        assert chosen[-1] == count - 1
        assert len(chosen) == min(count, 7)


def test_figures_follow_the_theme_and_share_no_ids():
    series = [Series(style(k), [0, 1], [1.0 + k, 2.0], [None, 0.5], f"row {k}") for k in range(7)]
    text = [charts.lines(prefix, "a < b", Axes("x $", "y"), series) for prefix in ("one", "two")]
    for svg in text:
        assert "#" not in re.sub(r"url\(#[\w-]+\)|href=\"#[\w-]+\"", "", svg)  # no colour of its own
        assert "currentColor" in svg
        assert "<style" not in svg
        assert "a &lt; b" in svg
        assert "x $" in svg
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in text]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert text[0] == charts.lines("one", "a < b", Axes("x $", "y"), series)


def test_a_logarithmic_axis_has_plain_numbers():
    points = [Point(style(k), x, 50.0 + k, None, f"row {k}") for k, x in enumerate((5.0, 70.0, 900.0))]
    svg = charts.scatter("s", "t", Axes("x", "y"), points)
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"10", "100"} <= set(ticks)
    assert not any("$" in text or "\\" in text for text in ticks)


def test_an_album_holds_each_picture_once_and_keeps_labels_exact():
    labels = np.random.default_rng(0).integers(0, 21, (40, 60), np.uint8)
    image = Image.fromarray(labels, mode="P")
    image.putpalette(bytes(range(256)) * 3)
    album = Album()
    first = album.add(image)
    assert first == album.add(image.copy())
    (kept,) = album.kept.values()
    again = Image.open(io.BytesIO(base64.b64decode(kept.source.split(",")[1])))
    assert np.array_equal(np.asarray(again.convert("RGB")), np.asarray(image.convert("RGB")))
    small = Album(limit=100)
    assert small.add(image) is None
    assert small.left_out == 1
