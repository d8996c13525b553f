"""The page's answer: headlines, the matrix of methods and benchmarks, their order, and the choice of runs."""

import re

import numpy as np
import pytest
import scipy.stats

from densecl.cli import main
from densecl.records.record import find_records
from densecl.report import answer
from densecl.report.gather import LONGEST, benchmarks
from densecl.report.grids import ranking
from densecl.tables.choose import Choice
from densecl.tables.paper import Names
from many_records import write_records
from report_runs import COMMITTED, committed

EMBEDDED = COMMITTED.parents[1]
NAMES = Names(None)


@pytest.fixture(scope="module")
def known():
    folders = ("deepinversion", "deepinversion-ablations", "tasks")
    found = [record for folder in folders for record in find_records(EMBEDDED / folder)[0]]
    return {each.name: each for each in benchmarks(found)}


def mean_iou(record):
    return 100 * np.mean([value for value in record.steps[-1].evaluations[0].metrics["iou"] if value is not None])


def said(benchmark):
    return answer.headline(benchmark, NAMES).says.replace("\N{NO-BREAK SPACE}", " ")


# ---- headlines


def test_the_headline_has_the_best_row_its_distance_and_the_paired_test_of_scipy(known):
    of_row = {
        member.label: {record.seed: mean_iou(record) for record in member.records}
        for member in known["shapes15-5s"].members
    }
    means = {label: np.mean(list(values.values())) for label, values in of_row.items()}
    best = max(means, key=means.get)
    rival = max((label for label in means if label.startswith("mib,")), key=means.get)
    seeds = sorted(of_row[best])
    p = scipy.stats.ttest_rel([of_row[best][s] for s in seeds], [of_row[rival][s] for s in seeds]).pvalue
    half = scipy.stats.t.ppf(0.975, 4) * scipy.stats.sem(list(of_row[best].values()))
    apart = round(means[best], 1) - round(means[rival], 1)
    assert said(known["shapes15-5s"]).startswith(
        f"is best: {means[best]:.1f} ± {half:.1f} (all), {apart:.1f} points above MiB, p = {p:.3f}; 5 seeds"
    )
    assert said(known["shapes15-5s"]).endswith("; it had besides: real images of earlier classes")
    head = answer.headline(known["shapes15-5s"], NAMES)
    assert (head.name, f"mib+deepinversion, {head.note}") == ("MiB + DeepInversion", best)


def test_what_a_test_cannot_tell_is_no_best_one(known):
    assert re.match(r"leads: 78\.1 ± [\d.]+ \(all\), 0\.8 points above MiB, which may be chance, p = 0\.\d+; 3 seeds$",
                    said(known["shapes15-5"]))  # fmt: skip
    assert "too few common seeds for a test" in said(known["camvid6-1"])


def test_a_sequence_is_answered_by_its_change_against_single_networks(known):
    head = answer.headline(known["shapes-3tasks"], NAMES)
    assert head.name == "PackNet"
    assert re.match(r"leads: 22\.9 ± [\d.]+ \(Δm\), 4\.7 points above Piggyback", head.says)


def test_held_out_scores_have_no_headline_and_one_row_is_alone(known, tmp_path):
    assert answer.headline(known["shapes15-5s on held-out training images"], NAMES) is None
    committed(tmp_path, 0)
    (alone,) = benchmarks(find_records(tmp_path)[0])
    assert said(alone).startswith("is alone: ")


# ---- order, matrix


def test_benchmarks_with_most_methods_and_runs_come_first_and_held_out_ones_last(known):
    assert list(known) == [
        "shapes-3tasks", "shapes-5tasks", "shapes15-5s", "shapes15-5", "camvid6-1",
        "shapes15-5s on held-out training images",
    ]  # fmt: skip


def test_the_matrix_has_the_best_row_of_each_method_and_says_of_how_many(known):
    (classes, of_classes), (_, of_tasks) = answer.matrices(list(known.values()), NAMES)
    assert classes == "Methods on streams of classes"
    assert [head.text for head in of_classes.heads] == ["method", "shapes15-5s", "shapes15-5", "camvid6-1"]
    cells = {line.cells[0].text: line.cells[1:] for line in of_classes.lines}
    for name, method in (("MiB", "mib"), ("MiB + DeepInversion", "mib+deepinversion")):
        rows = [m for m in known["shapes15-5s"].members if m.method == method]
        best = max(np.mean([mean_iou(record) for record in member.records]) for member in rows)
        assert 100 * cells[name][0].value == pytest.approx(best)
        assert cells[name][0].note == f"of {len(rows)}"
    assert not any("held-out" in head.text for head in of_classes.heads)
    assert [line.cells[0].text for line in of_tasks.lines][:2] == ["Piggyback", "PackNet"]  # places 1, 2 and 0, 3


def test_joint_stands_below_in_the_matrix(tmp_path):
    committed(tmp_path, 0)
    committed(tmp_path, 20, strategy="mib")
    committed(tmp_path, 1, strategy="joint")
    ((_, grid),) = answer.matrices(benchmarks(find_records(tmp_path)[0]), NAMES)
    assert grid.lines[-1].cells[0].text == "Joint"


def test_short_names_are_short_and_unlike_each_other(known):
    for benchmark in known.values():
        names = [member.short for member in benchmark.members]
        assert len(set(names)) == len(names)
        assert max(map(len, names)) <= LONGEST + 3
    assert "mib+deepinversion real, frozen" in {member.short for member in known["shapes15-5s"].members}


# ---- the choice of `densecl table`


def shown(choice, folder=COMMITTED):
    (benchmark,) = benchmarks(find_records(folder)[0], choice)
    return benchmark, ranking(benchmark)


def test_the_column_that_decides_comes_first_and_columns_can_be_chosen():
    _, grid = shown(Choice())
    assert [head.text for head in grid.heads][:3] == ["all", "p, all", "seeds"]
    _, grid = shown(Choice(columns=("added, base",)))
    assert [head.text for head in grid.heads] == ["16-20", "p, all", "seeds", "1-15"]


def test_rows_are_ranked_by_the_column_they_are_sorted_by():
    benchmark, grid = shown(Choice(sort="added"))
    assert benchmark.by == "16-20"
    values = [benchmark.table.cell(line.member.row, "16-20").mean for line in grid.lines]
    assert values == sorted(values, reverse=True)
    assert [line.rank for line in grid.lines] == [str(k + 1) for k in range(len(values))]
    benchmark, grid = shown(Choice(sort="forgetting"))
    values = [benchmark.table.cell(line.member.row, "forgetting").mean for line in grid.lines]
    assert values == sorted(values)
    assert grid.lines[0].rank == "1"
    _, grid = shown(Choice(sort="strategy:asc"))
    assert [line.member.row.strategy for line in grid.lines] == sorted(line.member.row.strategy for line in grid.lines)
    assert sorted(int(line.rank) for line in grid.lines) == [k + 1 for k in range(len(values))]


def test_a_grouping_decides_the_rank():
    benchmark, grid = shown(Choice(group="harmonic"))
    assert benchmark.by == grid.heads[0].text == "harmonic"
    foreground, _ = shown(Choice(group="fg-only"))
    record = foreground.members[0].records[0]
    iou = record.steps[-1].evaluations[0].metrics["iou"]
    assert foreground.table.cell(foreground.members[0].row, "all").values[0] == pytest.approx(np.mean(iou[1:]))


def test_the_command_takes_the_choice_of_table(tmp_path, capsys):
    write_records(tmp_path / "runs", 24)
    out = tmp_path / "r.html"
    words = ["--filter", "strategy=mib", "--sort", "added", "--columns", "all,forgetting", "--group", "with-bg"]
    assert main(["report", str(tmp_path / "runs"), "-o", str(out), *words]) == 0
    page = out.read_text(encoding="utf-8")
    assert "3 runs of 3 set-ups" in page
    assert ">plop<" not in page
    for words, message in (
        (["--filter", "training.lr<0"], "no run meets --filter"),
        (["--filter", "nonsense"], "is no condition"),
        (["--sort", "alll"], "did you mean 'all'"),
        (["--columns", "1-16"], "unknown column"),
        (["--group", "fg"], "unknown group"),
    ):
        capsys.readouterr()
        assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "no.html"), *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "no.html").exists()
