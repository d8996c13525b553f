"""`--layout paper` of class-incremental streams: benchmarks side by side, as LaTeX that stays within the text."""

import re
import shutil
import subprocess

import pytest

from densecl.cli import main
from densecl.streams import protocol
from densecl.tables.against import against
from densecl.tables.forms import listing
from densecl.tables.forms.text import render
from densecl.tables.listing import Line, Listing
from densecl.tables.paper import side_by_side
from densecl.tables.table import rows
from published_rows import reported, run
from tiny_runs import refused

SPLITS = ("15-5", "19-1", "10-1", "15-5s")


def runs(split, strategy, base, added, seeds=1, **changes):
    """Runs with one IoU for base and one for added classes, all background at 0.9."""
    steps = [list(step) for step in protocol.steps(split)]
    result = []
    for seed in range(seeds):
        record = run(seed=seed, benchmark=f"voc{split}", strategy=strategy, planned_steps=steps, **changes)
        iou = [0.9, *[base + 0.01 * seed] * len(steps[0]), *[added] * (20 - len(steps[0]))]
        evaluation = record.steps[0].evaluations[0]
        evaluation = evaluation.model_copy(update={"metrics": {**evaluation.metrics, "iou": iou}})
        groups = [[*range(1, 21)]] if strategy == "joint" else steps
        done = [
            record.steps[0].model_copy(update={"step": k, "new_classes": group, "evaluations": [evaluation]})
            for k, group in enumerate(groups)
        ]
        result.append(record.model_copy(update={"steps": done}))
    return result


def records(seeds=1):
    methods = {"mib": (0.7, 0.4), "mib+deepinversion": (0.72, 0.5), "plop": (0.71, 0.3), "joint": (0.8, 0.8)}
    return [
        one
        for split in SPLITS
        for name, (base, added) in methods.items()
        if (split, name) != ("10-1", "plop")
        for one in runs(split, name, base, added, seeds)
    ]


def joined(all_records, group=None, reported_rows=()):
    tables = rows(all_records, group=group)
    (table,) = side_by_side(against(tables, reported_rows, group) if reported_rows else tables)
    return table


def test_benchmarks_stand_side_by_side_in_the_order_and_under_the_names_of_papers():
    table = joined(records())
    spans = list(dict.fromkeys(column.over for column in table.columns))
    assert spans == ["19-1", "15-5", "15-1", "10-1"]
    assert [column.heading for column in table.columns[:4]] == ["19-1 1-19", "19-1 20", "19-1 all", "15-5 1-15"]
    assert [row.strategy for row in table.rows] == ["MiB", "PLOP", "MiB + DeepInversion", "Joint"]
    plop = table.rows[1].cells
    assert [cell.mean is None for cell in plop] == [False] * 9 + [True] * 3
    assert plop[3].mean == pytest.approx(0.71)
    assert plop[4].mean == pytest.approx(0.3)
    assert plop[5].mean == pytest.approx((0.9 + 15 * 0.71 + 5 * 0.3) / 21)


def test_the_best_and_the_second_of_each_column_are_marked_among_ranked_rows():
    table = joined(records())
    for index, best in enumerate(["MiB + DeepInversion"] * 12):
        assert [row.strategy for row in table.rows if row.cells[index].best] == [best]
    second = [[row.strategy for row in table.rows if row.cells[index].second] for index in range(12)]
    assert second == [["PLOP"], ["MiB"], ["PLOP"], *[["PLOP"], ["MiB"], ["MiB"]] * 2, [], [], []]  # 10-1 has two rows


def test_rows_that_look_as_good_as_the_second_are_second_too_and_those_like_the_best_are_not():
    names = {"mib": 0.5, "plop": 0.4, "lwf": 0.4001, "ilt": 0.49999, "ewc": 0.3}
    table = joined([one for name, base in names.items() for one in runs("15-5", name, base, 0.1)])
    assert {row.strategy for row in table.rows if row.cells[0].best} == {"MiB", "ILT"}
    assert {row.strategy for row in table.rows if row.cells[0].second} == {"PLOP", "LwF"}


def test_published_numbers_are_grey_rows_below_their_method():
    theirs = [reported(), reported(benchmark="voc19-1", values={"base": 71.4, "added": 9.0, "all": 68.0})]
    labels = {"set": {"stream.labels": "mib2020"}}
    ours = [one for split in ("15-5", "19-1") for one in runs(split, "mib", 0.7, 0.4, **labels)]
    ours += runs("15-5", "plop", 0.6, 0.3)
    table = joined(ours, "fg-only", theirs)
    assert [(row.strategy, row.source) for row in table.rows] == [
        ("MiB", ""), ("MiB", "MiB, Table 1"), ("PLOP", ""),
    ]  # fmt: skip
    assert [cell.mean for cell in table.rows[1].cells] == pytest.approx([0.714, 0.09, 0.68, 0.755, 0.494, 0.69])
    text = render([table], "latex")
    assert r"{}\textcolor{gray}{MiB, as in MiB, Table 1} & \textcolor{gray}{71.4} & \textcolor{gray}{9.0} &" in text


def test_latex_has_spans_rules_marks_and_citations_if_asked():
    text = render([joined(records())], "latex")
    assert text.startswith("% \\usepackage{booktabs,graphicx,xcolor}\n")
    assert r" & \multicolumn{3}{c}{19--1} & \multicolumn{3}{c}{15--5} & \multicolumn{3}{c}{15--1}" in text
    assert r"\cmidrule(lr){2-4}\cmidrule(lr){5-7}\cmidrule(lr){8-10}\cmidrule(lr){11-13}" in text
    assert r"method & 1--19 & 20 & all & 1--15 & 16--20 & all &" in text
    assert r"{}MiB + DeepInversion & \textbf{72.0} & \textbf{50.0} &" in text
    assert r"{}PLOP & \underline{71.0} & 30.0 &" in text
    assert r"\midrule" in text.partition("{}Joint")[0].rpartition("MiB + DeepInversion")[2]
    assert r"\cite" not in text
    cited = render([joined(records())], "latex", cite=True)
    assert r"{}MiB + DeepInversion~\cite{cermelli2020modeling,yin2020dreaming} &" in cited
    assert r"{}Joint &" in cited
    for body in re.findall(r"\\begin\{tabular\}\{@\{\}(l+r+)@\{\}\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in body[1].splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert len(lines) == 5
        assert all(len(re.findall(r"(?<!\\)&", line)) == len(body[0]) - 1 for line in lines)


def test_deviations_stand_beside_numbers_where_there_is_room():
    few = [one for one in records(3) if one.benchmark in ("voc15-5", "voc19-1")]
    assert r"{}PLOP & \underline{72.0 $\pm$1.0}" in render([joined(few)], "latex")
    assert r"$\pm$" not in render([joined(records(3))], "latex")
    assert "mean over seeds" in render([joined(records(3))], "latex")


def test_unfinished_runs_are_left_out_and_counted_and_held_out_ones_stand_apart():
    unfinished = runs("15-5", "ilt", 0.5, 0.2, status="failed")
    held_out = runs("15-5", "mib", 0.6, 0.3, set={"data.validation": 0.2})
    tables = side_by_side(rows([*records(), *unfinished, *held_out]))
    assert [table.benchmark for table in tables] == ["voc", "voc on held-out training images"]
    assert "ILT" not in [row.strategy for row in tables[0].rows]
    assert "1 unfinished runs left out" in tables[0].notes
    assert [cell.best for cell in tables[1].rows[0].cells] == [False] * 3


def hostile():
    wide = r"a_b&c%d$e#f{g}h~i^j\k" * 4
    return [*records(3), *(one for split in SPLITS for one in runs(split, wide, 0.75, 0.4, oracle="classes"))]


STYLES = {
    "article": r"\documentclass{article}",
    "two columns": r"\documentclass[twocolumn]{article}",
    "small paper": r"\documentclass[a5paper,twocolumn]{article}",
}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("style", STYLES)
def test_latex_stays_within_the_text_in_every_style(tmp_path, style):
    few = [one for one in records(3) if one.benchmark != "voc10-1"]
    theirs = [reported(table=f"Table {k}") for k in range(3)]
    tables = [joined(records()), joined(few), joined(hostile(), "fg-only", theirs)]
    body = render(tables, "latex", cite=True)
    wide = Line(("a method of " + "many words " * 6, *["71.8 ±2.0"] * 12), ("said of it " * 20,))
    view = Listing("A view", ("method", *[f"benchmark {k}" for k in range(12)]), (wide, wide), 1, ("besides",))
    body += listing.render([view], "latex")
    preamble = f"{STYLES[style]}\n\\usepackage{{booktabs,graphicx,xcolor}}\n"
    text = f"{preamble}\\begin{{document}}\nText.\n{body}\n\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    log = (tmp_path / "t.log").read_text(errors="replace")
    assert result.returncode == 0, log[-2000:]
    assert "Overfull" not in log
    assert "Missing character" not in log
    assert "too large for page" not in log
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def test_the_command_writes_it_and_refuses_what_does_not_go_with_it(tmp_path, capsys):
    for index, record in enumerate(records()):
        record.write(tmp_path / str(index) / "result.json")
    assert main(["table", str(tmp_path), "--layout", "paper"]) == 0
    shown = capsys.readouterr().out
    assert "MiB + DeepInversion" in shown
    assert "* is the best" in shown
    assert main(["table", str(tmp_path), "--layout", "paper", "--format", "markdown"]) == 0
    assert "<u>71.0</u>" in capsys.readouterr().out
    assert main(["table", str(tmp_path), "--layout", "paper", "--columns", "15-5 all", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("benchmark,strategy,settings,backbone,seeds,progress,oracle,15-5 all,")
    refused(capsys, ["table", tmp_path, "--layout", "paper", "--per-step"], "--layout paper", "--per-step")
    refused(capsys, ["table", tmp_path, "--cite"], "--cite", "--layout paper")
