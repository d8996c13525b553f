"""Sequences of tasks: their tables, and a whole run through the command line."""

import csv
import io
import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from data_trees import few_drawn
from densecl.cli import main
from densecl.records.published import Reported, read_all
from densecl.records.record import Found, Record, Stored, read_record
from densecl.report.comparison import compare
from densecl.report.gather import benchmarks
from densecl.settings.catalogue import published_files
from densecl.tables.against import against
from densecl.tables.forms.text import render
from densecl.tables.table import rows
from table_records import sequence_step


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


# ---- tables


def record(strategy, scores, sizes, seed=0):
    """Of three tasks: mIoU, mIoU, MSE; `scores[j][i]` of task i after task j, `sizes[j]` bytes by formula."""
    tasks = [
        {"name": "coco", "kind": "segmentation", "primary": "miou", "higher_is_better": True},
        {"name": "voc", "kind": "segmentation", "primary": "miou", "higher_is_better": True},
        {"name": "tint", "kind": "colorization", "primary": "mse", "higher_is_better": False},
    ]

    def metrics(j, i):
        lost = None if i == j else (scores[i][i] - scores[j][i]) * (1 if i < 2 else -1)
        own = {"miou": {"all": scores[j][i]}, "iou": [scores[j][i]]} if i < 2 else {"mse": scores[j][i], "ssim": 0.9}
        return {**own, "forgetting": lost}

    steps = [
        sequence_step(tasks, j, partial(metrics, j), model=Stored(tensors=size, file=size + 100, formula=size))
        for j, size in enumerate(sizes)
    ]
    return Record(
        densecl="0",
        benchmark="piggyback-3tasks",
        strategy=strategy,
        backbone="unet",
        seed=seed,
        hash=f"{seed}",
        status="finished",
        oracle="task",
        settings={},
        environment={},
        class_names=[],
        has_background=True,
        tasks=tasks,
        steps=steps,
    )


MIB = 2**20
PIGGYBACK = record(
    "piggyback",
    [[0.2], [0.2, 0.6], [0.2, 0.6, 240.0]],
    [round(56.405 * MIB), round(58.172 * MIB), round(59.934 * MIB)],
)


def values(table):
    return {c.heading: cell.mean for c, cell in zip(table.columns, table.rows[0].cells, strict=True)}


def test_the_papers_layout_adds_rounded_rows_and_the_plain_one_is_exact():
    paper = values(rows([PIGGYBACK], paper=True)[0])
    assert (paper["size task 1"], paper["size task 2"], paper["size task 3"], paper["size total"]) == (
        56.4,
        1.8,
        1.8,
        60.0,
    )
    assert values(rows([PIGGYBACK])[0])["size"] == pytest.approx(59.934, abs=1e-3)


def test_the_matrix_has_every_task_after_every_later_one():
    tuned = record("finetune", [[0.2], [0.01, 0.6], [0.0, 0.1, 230.0]], [1, 2, 3])
    matrix = values(rows([tuned], per_step=True)[0])
    assert matrix == {
        "coco after 1": 0.2,
        "coco after 2": 0.01,
        "coco after 3": 0.0,
        "voc after 2": 0.6,
        "voc after 3": 0.1,
        "tint after 3": 230.0,
    }
    plain = values(rows([tuned])[0])
    assert (plain["coco mIoU"], plain["voc mIoU"], plain["tint MSE"]) == (0.0, 0.1, 230.0)
    assert plain["coco forgetting"] == pytest.approx(0.2)
    assert values(rows([tuned], paper=True)[0])["coco mIoU"] == 0.2


def test_methods_of_a_sequence_are_ranked_though_they_are_told_the_task():
    tuned = record("finetune", [[0.2], [0.01, 0.6], [0.0, 0.1, 230.0]], [1, 2, 3])
    table = rows([PIGGYBACK, tuned])[0]
    best = {
        column.heading: row.strategy
        for index, column in enumerate(table.columns)
        for row in table.rows
        if row.cells[index].best
    }
    assert best["coco mIoU"] == "piggyback"
    assert best["tint MSE"] == "finetune"


def test_a_score_that_is_no_number_is_refused():
    content = json.loads(json.dumps(PIGGYBACK.model_dump(mode="json", by_alias=True)))
    content["steps"][2]["evaluations"][2]["metrics"]["mse"] = "low"
    with pytest.raises(ValueError, match="mse must be a number"):
        Record.model_validate(content)


# ---- the papers' numbers beside them


def published(**changes):
    own = {
        "name": "Toy", "paper": "A paper of tasks", "table": "Table 1", "source": "the paper", "benchmark": "piggyback",
        "method": "piggyback", "backbone": "unet(norm=instance)", "measures": {"mIoU %": 21.5}, "task": 1,
    }  # fmt: skip
    return Reported.model_validate(own | changes)


OURS = PIGGYBACK.model_copy(update={"settings": {"backbone_values": {"norm": "instance"}}})


def beside(records, reported, **options):
    (table,) = against(rows(records, **options), reported)
    lines = [row for row in table.rows if row.source]
    cells = [{c.heading: cell for c, cell in zip(table.columns, row.cells, strict=True) if cell.mean} for row in lines]
    return cells, " | ".join(table.notes)


def test_a_papers_scores_of_tasks_find_the_columns_of_the_same_task_and_step():
    reported = [
        published(),
        published(task=2, measures={"mIoU %": 50.0}),
        published(task=3, measures={"MSE": 250.0, "SSIM": 0.8}),
        published(task=1, after=2, measures={"mIoU %": 19.0}),
        published(table="Sizes", task=None, after=3, measures={"MiB": 60.0}),
    ]
    (scores, sizes), notes = beside([OURS], reported, paper=True)
    assert {name: cell.mean for name, cell in scores.items()} == {
        "coco mIoU": 0.215, "voc mIoU": 0.5, "tint MSE": 250.0, "tint SSIM": 0.8, "coco after 2": 0.19,
    }  # fmt: skip
    assert scores["coco mIoU"].difference == pytest.approx(0.2 - 0.215)
    assert scores["tint MSE"].difference == pytest.approx(240.0 - 250.0)
    assert {name: cell.mean for name, cell in sizes.items()} == {"size total": 60.0}
    assert "Toy, Table 1: the training recipe is not stated" in notes
    text = render(against(rows([OURS], paper=True), reported))
    assert "reported by Toy, Table 1" in text
    assert "21.5 (-1.5)" in text
    assert "250 (-10)" in text
    assert len(list(csv.reader(io.StringIO(render(against(rows([OURS]), reported), "csv"))))) == 4


def test_after_the_last_task_an_earlier_score_has_no_column_and_is_said_below():
    (scores,), notes = beside([OURS], [published(), published(task=3, measures={"MSE": 250.0})])
    assert list(scores) == ["tint MSE"]  # the first task's own score is no longer there
    assert "Toy, Table 1, of which there is no column here: piggyback, task 1 mIoU % 21.5" in notes
    (scores,), _ = beside([OURS], [published(after=3, measures={"mIoU %": 21.5})])
    assert list(scores) == ["coco mIoU"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"benchmark": "other"}, "data piggyback (there other)"),
        ({"backbone": "unet"}, ""),
        ({"backbone": "unet(norm=batch)"}, "backbone unet(norm=instance) (there unet(norm=batch))"),
        ({"backbone": None}, "backbone not stated"),
        ({"pretrained": True}, "no pretrained weights"),
        ({"strategy": {"masks": "ternary"}}, "masks none (there ternary)"),
        ({"settings": {"training": {"epochs": 200}}}, "30 epochs (there 200 epochs)"),
        ({"task": 3, "measures": {"MSE": 1.0}, "settings": {"training": {"epochs": 7}}}, "8 epochs (there 7 epochs)"),
        ({"task": 3, "measures": {"MSE": 1.0}, "settings": {"training": {"epochs": 8}}}, ""),
        ({"variant": "cross-entropy"}, "there cross-entropy"),
    ],
)
def test_what_a_paper_of_tasks_states_must_agree(changes, fault):
    training = {"epochs": 30, "later": {"epochs": [20, 8]}}
    record = OURS.model_copy(update={"settings": OURS.settings | {"training": training}})
    cells, notes = beside([record], [published(**changes)], paper=True)
    assert bool(cells) == (not fault)
    assert (f": {fault}" in notes) or not fault


def test_tasks_that_a_run_does_not_have_are_not_compared_and_other_data_are_named():
    cells, notes = beside([OURS], [published(task=4, measures={"SSIM": 0.5})])
    assert (cells, "nothing published is known for piggyback" in notes) == ([], True)
    drawn = OURS.model_copy(update={"benchmark": "shapes-3tasks"})
    cells, notes = beside([drawn], [published(), published(name="Mallya", measures={"MB": 1.0})])
    assert cells == []
    assert "not compared: Toy, Table 1 (piggyback, task 1 mIoU % 21.5): data shapes (there piggyback)" in notes
    assert "Mallya" not in notes  # it has no score that a task here has


def test_the_catalogues_numbers_of_task_sequences_are_shown():
    reported = read_all(published_files())
    cells, notes = beside([OURS], reported, paper=True)
    assert cells[0]["voc mIoU"].mean == pytest.approx(0.6145)
    assert cells[1]["size total"].mean == 60.0
    assert "Piggyback, section 6 (piggyback mIoU % 61.41, mask MB 17, new layers MB 7.5)" in notes
    (same,) = benchmarks([Found(Path("a/result.json"), OURS)])
    grid = compare([same], reported).grid
    assert grid is not None
    reported, measured, apart = (cell.text for cell in grid.lines[0].cells[3:])
    assert (reported, measured, apart) == ("21.5", "20.0", "-1.5")


# ---- a whole run


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The drawn data sets, with few images each."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    few_drawn(monkeypatch, 12, 4, 6)
    return tmp_path


def test_a_run_keeps_masks_and_pictures_and_can_be_looked_into(drawn, capsys):
    words = ["run", "-b", "shapes-5tasks", "-s", "piggyback", "--backbone", "unet(width=4,depth=2)", "--device", "cpu"]
    words += ["--output", str(drawn / "o"), "--set", "training.iterations=2", "--set", "training.batch=4"]
    assert main(words) == 0
    path = next((drawn / "o").rglob("result.json"))
    found = read_record(path)
    assert found.status == "finished"
    assert [len(step.evaluations) for step in found.steps] == [1, 2, 3, 4, 5]
    # nothing is forgotten, to the bit
    scores = [[evaluation.metrics for evaluation in step.evaluations] for step in found.steps]
    for j in range(5):
        for i in range(j):
            assert scores[j][i] == {**scores[i][i], "forgetting": 0.0}
    folder = path.parent
    assert sorted(file.stem for file in (folder / "masks").iterdir()) == ["colours", "figures", "swirls", "waves"]
    picture = Image.open(folder / "pictures" / "step4-waves.png")
    assert picture.size == (3 * 48, 4 * 48)
    capsys.readouterr()
    assert main(["inspect", str(folder), "--masks"]) == 0
    assert "swirls, waves" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--masks", "--task", "shapes"]) == 2
    assert "'shapes'" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [evaluation["metrics"] for evaluation in again] == [
        evaluation.model_dump(mode="json")["metrics"] for evaluation in found.steps[-1].evaluations
    ]
    assert main(["evaluate", str(folder), "--step", "1", "--task", "waves"]) == 2
    assert "waves" in capsys.readouterr().err
    for more in ([], ["--per-step"], ["--layout", "paper", "-b", "shapes-5tasks"]):
        assert main(["table", str(drawn / "o"), *more]) == 0
    other = folder / "masks" / "waves.safetensors"
    (folder / "masks" / "figures.safetensors").rename(other)
    shown = main([*words, "--backbone", "unet(width=6,depth=2)"])
    assert shown == 0
    wide = next(p.parent for p in (drawn / "o").rglob("result.json") if p.parent != folder)
    other.rename(wide / "masks" / "figures.safetensors")
    capsys.readouterr()
    assert main(["inspect", str(wide), "--masks"]) == 2
    assert "figures.safetensors is of another run" in capsys.readouterr().err


def test_plan_and_recipe_are_shown(drawn, capsys):
    assert main(["show", "shapes-5tasks"]) == 0
    assert "swirls: style transfer on tints" in capsys.readouterr().out
    words = ["run", "-b", "shapes-3tasks", "-s", "packnet", "--dry-run", "--device", "cpu", "--output", str(drawn)]
    assert main([*words, "--set", "training.batch=4", "--backbone", "unet(width=4,depth=2)"]) == 0
    assert "colours: colorization on tints" in capsys.readouterr().out
