"""The notebooks of the documentation run from top to bottom, and the objects in them are what they seem."""

import ast
import json
from pathlib import Path

import pytest

from data_trees import few_drawn

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="not a checkout")


@pytest.fixture(scope="module")
def few_images(tmp_path_factory):
    """A cache of its own with a small drawn data set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DENSECL_CACHE", str(tmp_path_factory.mktemp("cache")))
        few_drawn(patch, train=40, val=4, test=6)
        yield


def run_cells(path: Path) -> tuple[list[object], dict[str, object]]:
    """Run the cells of code; the value of each that ends with an expression, and the names."""
    names: dict[str, object] = {"__name__": "notebook"}
    values = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "a notebook is kept without outputs"
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        if last is not None:
            values.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))
    return values, names


@pytest.mark.usefixtures("one_thread", "few_images")
def test_the_first_table_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values, names = run_cells(next(path for path in NOTEBOOKS if path.stem == "first-table"))
    tables, scores = values[0], values[1]
    assert tables._repr_html_().count("<tr>") == 4
    assert {strategy for strategy, _ in scores} == {"finetune", "lwf", "mib"}
    assert sum(record.steps[0].shared for record in names["records"]) == 2
    assert "step 0 (1 of 2): loaded" in capsys.readouterr().err


@pytest.mark.usefixtures("one_thread", "few_images")
def test_an_own_loop_and_a_method_of_the_notebook_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values, names = run_cells(next(path for path in NOTEBOOKS if path.stem == "own-loop"))
    assert values[0][1] == [tuple(range(1, 16)), tuple(range(16, 21))]
    assert values[1] is True
    assert names["scores"][1]["forgetting"] is not None
    (table,) = values[-1]
    assert sorted(row.note for row in table.rows) == ["weight=0.0", "weight=1.0"]
