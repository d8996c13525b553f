"""Records of made-up runs, and what a table shows of them."""

from densecl.records.record import Evaluation, Record, StepRecord

STEPS = ((1, 2, 3), (4,), (5, 6))


def make(
    strategy="mib", base=0.5, added=0.3, seed=0, *, steps=STEPS, status="finished", done=None, background=0.9, **changes
):
    """A run whose base and added classes have one IoU each after its last step."""
    planned = [list(step) for step in steps]
    taken = [[label for step in steps for label in step]] if strategy == "joint" else planned
    records = []
    for index, new in enumerate(taken[:done]):
        known = {label for step in taken[: index + 1] for label in step}
        iou = [background] + [
            0.0 if label not in known else base if label in steps[0] else added for label in range(1, 7)
        ]
        metrics = {"miou": {}, "iou": iou, "forgetting": 0.1 if index else None}
        evaluations = [Evaluation(task="segmentation", metrics=metrics)]
        records.append(
            StepRecord(
                step=index, task="segmentation", new_classes=new, iterations=5, seconds=40.0, evaluations=evaluations
            )
        )
    values = {
        "densecl": "0.1.0",
        "benchmark": "toy3-1",
        "strategy": strategy,
        "backbone": "bisenet",
        "seed": seed,
        "hash": f"{strategy}{seed}",
        "status": status,
        "settings": {"seed": seed, "training": {"lr": 0.01, "batchnorm": "train"}},
        "environment": {},
        "class_names": ["background", *"abcdef"],
        "has_background": True,
        "planned_steps": planned,
        "steps": records,
    }
    return Record(**(values | changes))


def sequence_step(tasks, j, metrics, **more):
    """Step `j` of a sequence of tasks as a record has it; `metrics(i)` are those of task i after it."""
    evaluations = [{"task": tasks[i]["name"], "metrics": metrics(i)} for i in range(j + 1)]
    step = {"step": j, "task": tasks[j]["name"], "new_classes": [], "iterations": 1, "seconds": 1.0}
    return {**step, "evaluations": evaluations, **more}


def cells(table, strategy):
    row = next(row for row in table.rows if row.strategy == strategy)
    return {column.heading: cell for column, cell in zip(table.columns, row.cells, strict=True)}
