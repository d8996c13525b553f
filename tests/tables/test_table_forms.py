"""Marks of significance, spreads, footnotes, and the forms that other programs read: CSV, Markdown, LaTeX."""

import csv
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from scipy import stats

from densecl.tables.forms.latex import escape
from densecl.tables.forms.text import render
from densecl.tables.table import rows
from table_records import cells, make

STRONG = [0.60, 0.62, 0.61, 0.65]
CLOSE = [0.59, 0.62, 0.62, 0.63]  # now above, now below
WEAK = [0.50, 0.52, 0.51, 0.55]  # ten points less with every seed
HOSTILE = r'a_b&c%d$e#f{g}h~i^j\k<l>m|n"o--p`q' + "é ü ß ł 好 ≈ ± → ı \u0300[z]*_"


def runs(strategy, values, first=0, **changes):
    return [make(strategy, value, seed=first + seed, **changes) for seed, value in enumerate(values)]


def forgets(record, value):
    """The run with another forgetting after its last step."""
    evaluation = record.steps[-1].evaluations[0]
    evaluation = evaluation.model_copy(update={"metrics": evaluation.metrics | {"forgetting": value}})
    last = record.steps[-1].model_copy(update={"evaluations": [evaluation]})
    return record.model_copy(update={"steps": [*record.steps[:-1], last]})


def base(records, strategy):
    (table,) = rows(records)
    return cells(table, strategy)["1-3"]


def test_what_a_paired_test_cannot_tell_from_the_best_is_marked():
    records = runs("strong", STRONG) + runs("close", CLOSE) + runs("weak", WEAK)
    strong, close, weak = (base(records, name) for name in ("strong", "close", "weak"))
    assert (strong.best, strong.close, strong.p) == (True, False, None)
    assert (close.best, close.close) == (False, True)
    assert close.p == pytest.approx(stats.ttest_rel(STRONG, CLOSE).pvalue)
    assert close.p > 0.05
    assert (weak.best, weak.close) == (False, False)
    assert weak.p == pytest.approx(0, abs=1e-6)
    text = render(rows(records))
    assert "*62.0" in text
    assert "≈61.5" in text
    assert " 52.0" in text
    assert "≈ cannot be told from the best: paired t-test over at least 3 common seeds, p ≥ 0.05" in text


def test_where_lower_is_better_the_lowest_is_the_one_to_be_told_from():
    names = {"weak": STRONG, "close": [value - 0.09 for value in CLOSE], "strong": WEAK}
    records = [
        forgets(run, lost)
        for name, losses in names.items()
        for run, lost in zip(runs(name, STRONG), losses, strict=True)
    ]
    (table,) = rows(records)
    found = {name: cells(table, name)["forgetting"] for name in names}
    assert [found[name].best for name in names] == [False, False, True]
    assert [found[name].close for name in names] == [False, True, False]
    assert found["close"].p == pytest.approx(stats.ttest_rel(names["close"], WEAK).pvalue)


def test_seeds_are_paired_and_two_in_common_are_too_few():
    noise = np.array([0.0, 0.2, -0.2, 0.1])  # of the seed: far larger than the difference, which is sure
    ours, theirs = runs("a", 0.5 + noise), runs("b", 0.47 + noise + [0.001, 0, 0, -0.001])
    assert base(ours + theirs, "b").close is False
    assert base(ours + list(reversed(theirs)), "b").p < 1e-3
    shifted = runs("b", 0.47 + noise, first=2)
    assert base(ours + shifted, "b").p is None
    assert base(ours + shifted, "b").close is False


def test_rows_that_are_not_ranked_are_neither_best_nor_close():
    records = runs("strong", STRONG) + runs("close", CLOSE) + runs("joint", STRONG) + runs("told", CLOSE, oracle="task")
    for name in ("joint", "told"):
        cell = base(records, name)
        assert (cell.best, cell.close, cell.p) == (False, False, None)
    alone = runs("strong", STRONG) + runs("joint", CLOSE)
    assert base(alone, "strong").best is False  # nothing to compare with


def test_a_row_that_looks_as_good_as_the_best_is_best_and_not_marked_twice():
    cell = base(runs("a", STRONG) + runs("b", [value - 1e-5 for value in STRONG]), "b")
    assert (cell.best, cell.close) == (True, False)


def test_the_spread_is_a_deviation_or_an_interval():
    tables = rows(runs("mib", STRONG))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(STRONG), scale=stats.sem(STRONG))
    assert f"62.0 ±{100 * np.std(STRONG, ddof=1):.1f}" in render(tables)
    text = render(tables, spread="interval")
    assert f"62.0 ±{50 * (high - low):.1f}" in text
    assert "95 % interval" in text
    assert "±" not in render(rows(runs("mib", STRONG[:1])), spread="interval")


def test_csv_has_full_precision_both_spreads_and_p():
    text = render(rows(runs("strong", STRONG) + runs("close", CLOSE)), "csv")
    close, strong = csv.DictReader(io.StringIO(text))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(STRONG), scale=stats.sem(STRONG))
    assert float(strong["1-3"]) == pytest.approx(np.mean(STRONG), rel=1e-15)
    assert float(strong["1-3 std"]) == pytest.approx(np.std(STRONG, ddof=1), rel=1e-14)
    assert float(strong["1-3 interval"]) == pytest.approx((high - low) / 2, rel=1e-9)
    assert strong["1-3 p"] == ""
    assert float(close["1-3 p"]) == pytest.approx(stats.ttest_rel(STRONG, CLOSE).pvalue)


def long_notes():
    """Three set-ups, two of which differ from the third by many settings."""
    records = []
    for k in range(3):
        training = {"lr": 0.01, "batchnorm": "train", "iterations": 5} | ({} if k == 0 else {"batchnorm": "frozen"})
        later = {"later": {"lr": 0.001 * k, "iterations": 10 * k}} if k else {}
        records.append(make("mib", 0.5 + 0.1 * k, settings={"seed": 0, "training": training | later}))
    return rows([*records, make("lwf"), make("finetune")])


def test_no_text_in_csv_begins_as_a_formula():
    formulas = ["=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(A1)"]
    records = [make(sign, benchmark=sign, backbone=sign, oracle=sign) for sign in formulas]
    text = render(rows([forgets(record, -0.25) for record in records]), "csv")
    lines = list(csv.reader(io.StringIO(text)))
    for line in lines:
        for cell in line:
            assert not cell.startswith(("=", "+", "@")), cell
            assert not cell.startswith("-") or float(cell) < 0, cell
    assert [line[1] for line in lines[1:]] == sorted(f"'{sign}" for sign in formulas)
    assert "-0.25" in text  # numbers stay numbers


def test_long_notes_become_numbered_footnotes():
    notes = [row.note for row in long_notes()[0].rows if row.note]
    assert len(notes) == 2
    assert min(map(len, notes)) > 40
    text = render(long_notes())
    for number, note in enumerate(notes, start=1):
        assert re.search(rf"^mib \[{number}\] +1 ", text, re.MULTILINE)
        assert f"\n[{number}] {note}\n" in text
        assert text.count(note) == 1
    markdown = render(long_notes(), "markdown")
    assert f"<br>\n<sup>2</sup> {notes[1]}".replace("_", r"\_") in markdown
    assert "| mib<sup>2</sup> " in markdown
    assert r"mib\textsuperscript{2} &" in render(long_notes(), "latex")


def test_short_notes_stay_beside_names_until_the_screen_is_too_narrow_for_them():
    frozen = {"seed": 0, "training": {"lr": 0.01, "batchnorm": "frozen"}}
    tables = rows(
        [
            *runs("finetune", STRONG),
            *runs("mib", WEAK),
            *[r.model_copy(update={"settings": frozen}) for r in runs("mib", STRONG)],
        ]
    )
    assert "mib batchnorm=frozen" in render(tables)
    narrow = render(tables, width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "mib [1]" in narrow
    assert "\n[1] batchnorm=frozen\n" in narrow
    assert "±" in narrow.splitlines()[2]  # the note went before the deviations had to
    assert "mib batchnorm=frozen" in render(tables, "markdown")


def test_markdown_is_aligned_and_every_name_is_literal():
    text = render(rows(runs(HOSTILE, STRONG) + runs("close", CLOSE)), "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    pipes = [[m.start() for m in re.finditer(r"(?<!\\)\|", line)] for line in lines]
    assert all(place == pipes[0] for place in pipes)
    assert re.fullmatch(r"\| -+ \| -+ \|( -+: \|)+", lines[1])
    name = next(line for line in lines if "62.0" in line).split(" | ")[0]
    assert re.sub(r"\\(?=[\\`*_<>|\[\]~])", "", name)[2:].strip() == HOSTILE


def document(body):
    return "\n".join(
        [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}", body, r"\end{document}"]
    )


def hostile_tables():
    records = runs(HOSTILE, STRONG) + runs("close", CLOSE) + runs("[x]", WEAK, oracle="task") + runs("joint", STRONG)
    records += [make("mib", 0.3, settings={"seed": 0, "data": {"x_&%$#": HOSTILE}}, backbone=HOSTILE)]
    return rows([*records, make("mib", benchmark=HOSTILE), make("lwf", status="failed", done=0)])


def checked_latex(text):
    """Check LaTeX without a compiler: environments closed, cells counted, no bare command."""
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    for body in re.findall(r"\\begin\{tabular\}\{@\{\}(l+r+)@\{\}\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in body[1].splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(body[0]) - 1
    for line in text.splitlines():
        if not line.startswith("%"):
            bare = re.sub(r"\\(?:[&%$#_{}]|[a-zA-Z]+|\\)|\$\\?[a-z]+\$|\$-\$|&|[{}]", "", line)
            assert not set(bare) & set(r"\$#%_~^<>|" + '"'), line
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0


def test_latex_is_well_formed_whatever_the_names():
    text = render(hostile_tables(), "latex")
    checked_latex(text)
    assert all(character.isascii() or character in "éüß" for character in text)
    for part in (r"\toprule", r"$\pm$", r"$\approx$61.5", r"\textsuperscript{\dag}", r"[x]\textsuperscript{\dag}"):
        assert part in text


def test_latex_escapes_one_by_one():
    assert escape("50 % of a_b & c#d $5 {x}") == r"50 \% of a\_b \& c\#d \$5 \{x\}"
    assert (
        escape(r"\x~^<>|") == r"\textbackslash{}x\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"
    )
    assert escape("±≈≥†") == r"$\pm$$\approx$$\ge$\textsuperscript{\dag}"
    assert escape("see --group a---b") == "see -{}-group a-{}-{}-b"
    assert escape("好 ﬁ é") == "? fi é"


def test_latex_has_minus_signs_and_a_dash_for_nothing():
    text = render(rows([forgets(make("lwf"), -0.021), make("mib", status="failed", done=0)]), "latex")
    assert "& $-$2.1 &" in text
    assert re.search(r"\{\}mib \(0 of 3 steps\) & 1 & -- &", text)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("make_tables", [hostile_tables, long_notes])
def test_latex_compiles(tmp_path, make_tables):
    (tmp_path / "t.tex").write_text(document(render(make_tables(), "latex", spread="interval")), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    log = (tmp_path / "t.log").read_text(errors="replace")
    assert result.returncode == 0, log[-2000:]
    assert "Missing character" not in log
    assert (tmp_path / "t.pdf").stat().st_size > 1000
