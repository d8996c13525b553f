"""Δm and relative forgetting of a sequence: by hand, in the tables, and in the layout of HAD."""

import pytest

from densecl.records.record import Record
from densecl.tables.compare import table as tables_of
from densecl.tables.table import rows
from table_records import sequence_step

TASKS = (
    {"name": "labels", "kind": "segmentation", "primary": "miou", "higher_is_better": True, "class_names": ["wall"]},
    {"name": "depth", "kind": "depth", "primary": "absolute", "higher_is_better": False},
    {"name": "normals", "kind": "normals", "primary": "angle", "higher_is_better": False},
)


def metrics(kind, score):
    if kind == "segmentation":
        return {"miou": {"all": score}, "iou": [score]}
    if kind == "depth":
        return {
            "absolute": score,
            "relative": score / 2,
            "rmse": 2 * score,
            "delta1": 0.5,
            "delta2": 0.7,
            "delta3": 0.9,
        }
    return {"angle": score, "median": score - 1, "within_11.25": 0.3, "within_22.5": 0.6, "within_30": 0.8}


def record(strategy, learnt, last, seed=0, done=3, **changes):
    """A run of three tasks, whose scores are `learnt` at their own step and `last` after the third."""

    def after(scores):
        return lambda i: metrics(TASKS[i]["kind"], scores[i])

    steps = [sequence_step(TASKS, j, after(last if j == 2 else learnt)) for j in range(done)]
    values = {
        "densecl": "0", "benchmark": "scenes-3tasks", "strategy": strategy, "backbone": "unet", "seed": seed,
        "hash": f"{strategy}{seed}", "status": "finished" if done == 3 else "running", "oracle": "task",
        "settings": {"backbone_values": {"width": 16}}, "environment": {}, "class_names": [], "has_background": True,
        "tasks": list(TASKS), "steps": steps,
    }  # fmt: skip
    return Record(**(values | changes))


ALONE = [
    record("scratch", (0.5, 0.4, 20.0), (0.5, 0.4, 20.0)),
    record("scratch", (0.7, 0.6, 20.0), (0.7, 0.6, 20.0), seed=1),
]
TUNED = record("finetune", (0.6, 0.45, 18.0), (0.3, 0.9, 18.0))


def cell(records, strategy, heading, **options):
    (table,) = rows(records, **options)
    row = next(row for row in table.rows if row.strategy == strategy)
    return table.cell(row, heading).mean


def test_the_change_against_networks_alone_is_signed_by_the_metrics_direction():
    """Alone: mIoU 0.6, depth 0.5, angle 20. mIoU falls by half, depth errs 0.4 / 0.5 more, angles are 10 % better."""
    records = [*ALONE, TUNED]
    assert cell(records, "finetune", "Δm") == pytest.approx((-0.5 - 0.8 + 0.1) / 3)
    assert cell(records, "scratch", "Δm") == pytest.approx(0)  # its seeds differ, their mean does not
    assert cell(records, "finetune", "forgetting") == pytest.approx((0.5 + 1.0) / 2)
    assert cell(records, "scratch", "forgetting") == 0


def test_without_networks_alone_there_is_no_change_and_it_is_said():
    (table,) = rows([TUNED])
    assert "Δm" not in [column.heading for column in table.columns]
    assert "no run of scratch, so no Δm" in table.notes
    (table,) = rows([TUNED, record("scratch", (0.5, 0.4, 20.0), (0.5, 0.4, 20.0), done=2)])
    assert "Δm" not in [column.heading for column in table.columns]


def test_a_network_is_compared_with_itself_alone():
    """Not with runs of scratch on another backbone, or on one with other values."""
    other = record("scratch", (0.1, 9.0, 90.0), (0.1, 9.0, 90.0), settings={"backbone_values": {"width": 4}})
    assert cell([*ALONE, other, TUNED], "finetune", "Δm") == pytest.approx(-0.4)
    assert cell([*ALONE, TUNED, record("lwf", (1, 1, 1), (1, 1, 1), backbone="fcn")], "lwf", "Δm") is None


def test_a_run_that_is_not_done_has_neither_number():
    running = record("lwf", (0.6, 0.4, 18.0), (0.6, 0.4, 18.0), done=2)
    assert cell([*ALONE, running], "lwf", "Δm") is None
    assert cell([*ALONE, running], "lwf", "forgetting") is None


def test_rows_are_in_the_order_of_the_change():
    better = record("wsn", (0.6, 0.5, 18.0), (0.6, 0.5, 18.0))
    worse = record("norms", (0.3, 0.9, 40.0), (0.3, 0.9, 40.0))
    (table,) = rows([better, *ALONE, worse])
    assert [row.strategy for row in table.rows] == ["norms", "scratch", "wsn"]
    best = {row.strategy: table.cell(row, "Δm").best for row in table.rows}
    assert best == {"norms": False, "scratch": False, "wsn": True}


def test_the_layout_of_had_has_all_scores_of_depth_and_normals(tmp_path):
    (table,) = rows([*ALONE, TUNED], paper=True)
    assert [column.heading for column in table.columns] == [
        "labels mIoU", "depth abs", "depth rel", "depth RMSE", "depth < 1.25", "depth < 1.25^2", "depth < 1.25^3",
        "normals angle", "normals median", "normals < 11.25", "normals < 22.5", "normals < 30", "Δm", "forgetting",
    ]  # fmt: skip
    row = next(row for row in table.rows if row.strategy == "finetune")
    assert [round(cell.mean, 3) for cell in row.cells[:6]] == [0.3, 0.9, 0.45, 1.8, 0.5, 0.7]
    directions = {column.heading: column.better for column in table.columns}
    assert [directions[f"depth {name}"] for name in ("rel", "RMSE", "< 1.25")] == ["lower", "lower", "higher"]
    for run in [*ALONE, TUNED]:
        path = tmp_path / run.hash / "result.json"
        path.parent.mkdir()
        path.write_text(run.model_dump_json(by_alias=True))
    (table,) = tables_of(tmp_path, layout="paper")
    assert "-40.0" in str(table)
    assert any("as HAD" in note for note in table.notes)
