"""`--per-class`: the IoU of each class after the last step, a line a class and a column a method."""

import csv
import io
from pathlib import Path

import pytest

from densecl.cli import main
from densecl.records.record import find_records
from densecl.tables.forms.text import render
from densecl.tables.table import rows
from report_runs import committed
from table_records import make
from tiny_runs import refused

EMBEDDED = Path(__file__).parents[2] / "results" / "embedded"


def records():
    return [make("mib", 0.5 + 0.01 * seed, 0.3, seed=seed) for seed in range(3)] + [make("lwf", 0.2, 0.4)]


def by_class(runs):
    (table,) = rows(runs, per_class=True)
    return table


def test_each_class_has_its_own_mean_over_seeds_and_its_own_best():
    table = by_class(records())
    assert [column.heading for column in table.columns] == ["background", *"abcdef"]
    cells = {row.strategy: row.cells for row in table.rows}
    assert cells["mib"][1].mean == pytest.approx(0.51)
    assert cells["mib"][1].std == pytest.approx(0.01)
    assert cells["lwf"][6].mean == pytest.approx(0.4)
    assert [cell.best for cell in cells["mib"]] == [True, True, True, True, False, False, False]
    order = "in order of arrival: 3 at step 0, then 1 at step 1, then 2 at step 2"
    assert table.notes[0] == f"IoU in % of each class after the last step, {order}"


def test_classes_are_lines_and_methods_columns_in_every_text():
    lines = [line.split() for line in render([by_class(records())]).splitlines()]
    assert lines[1:3] == [["strategy", "lwf", "mib"], ["seeds", "1‡", "3"]]
    assert lines[4] == ["a", "20.0", "*51.0", "±1.0"]
    markdown = render([by_class(records())], "markdown")
    assert "| b          |     20.0 | **51.0 ±1.0** |" in markdown
    latex = render([by_class(records())], "latex")
    assert r"{}f & \textbf{40.0} & 30.0 $\pm$0.0 \\" in latex
    assert r"\begin{tabular}{@{}lrr@{}}" in latex
    table = csv.DictReader(io.StringIO(render([by_class(records())], "csv")))
    assert [float(line["d"]) for line in table] == pytest.approx([0.4, 0.3])


def test_backbones_have_a_line_where_they_differ():
    table = by_class([make("mib"), make("lwf", backbone="res-50")])
    lines = [line.split() for line in render([table]).splitlines()]
    assert lines[1:4] == [["strategy", "lwf", "mib"], ["backbone", "res-50", "bisenet"], ["seeds", "1", "1"]]
    assert r"{}backbone & res-50 & bisenet \\" in render([table], "latex")


def test_a_narrow_screen_shows_the_methods_in_parts():
    table = by_class([make(f"a_method_with_a_long_name_{k}", 0.1 * k) for k in range(6)])
    text = render([table], width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"a_method_with_a_long_name_{k}" in text for k in range(6))
    assert text.count("background") == 3


def test_classes_are_found_by_name_where_runs_differ_in_their_order():
    own, other = make("mib", 0.5, 0.3), make("lwf", 0.5, 0.3, class_names=["background", *"fedcba"])
    table = by_class([own, other])
    cells = {row.strategy: dict(zip([c.heading for c in table.columns], row.cells, strict=True)) for row in table.rows}
    assert {name: cell.mean for name, cell in cells["mib"].items()}["a"] == 0.5
    assert {name: cell.mean for name, cell in cells["lwf"].items()}["a"] == 0.3
    assert "differ in the order of arrival" in table.notes[0]


def test_what_a_row_has_not_learnt_is_empty_and_background_counts_where_there_is_one():
    table = by_class([make("mib", done=2), make("lwf")])
    cells = {row.strategy: row.cells for row in table.rows}
    assert [cell.mean is None for cell in cells["mib"]] == [False] * 5 + [True] * 2
    table = by_class([make("mib", has_background=False)])
    assert [column.heading for column in table.columns] == [*"abcdef"]


def test_of_a_sequence_each_task_has_its_classes():
    found, _ = find_records(EMBEDDED / "tasks" / "shapes-3tasks" / "finetune")
    (table,) = rows([run.record for run in found], per_class=True)
    (row,) = table.rows
    headings = [f"{task.name} {name}" for task in row.runs[0].tasks for name in task.class_names]
    assert [column.heading for column in table.columns] == [name for name in headings if not name.endswith(" other")]
    iou = [run.steps[-1].evaluations[0].metrics["iou"] for run in row.runs]
    first = headings[0].endswith(" other")
    for label, cell in enumerate(row.cells[: len(iou[0]) - first], start=first):
        assert cell.mean == pytest.approx(sum(values[label] for values in iou) / len(iou))


def test_the_command_shows_it_and_refuses_means_of_classes(tmp_path, capsys):
    committed(tmp_path, 0)
    assert main(["table", str(tmp_path), "--per-class"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("strategy")
    for more in (["--per-step"], ["--group", "fg-only"], ["--layout", "paper"], ["--against", "published"]):
        refused(capsys, ["table", tmp_path, "--per-class", *more], "--per-class", more[0])
