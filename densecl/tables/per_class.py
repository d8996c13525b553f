"""The columns of `densecl table --per-class`: the IoU of each class after the last step."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from densecl.records.layout import Layout, clean
from densecl.records.record import Record, TaskRecord
from densecl.tables.columns import Column
from densecl.tables.scores import Scores

Value = Callable[[Scores], float | None]


def of_classes(layout: Layout, records: Sequence[Record]) -> Iterator[tuple[Column, Value]]:
    """A column for each class, found by its name: runs may differ in the order of arrival."""
    first = 0 if layout.has_background else 1
    for name in dict.fromkeys(name for record in records for name in record.class_names[first:]):
        yield Column(clean(name), "share", "higher"), partial(Scores.of_class, name=name)


def of_tasks(tasks: Sequence[TaskRecord]) -> Iterator[tuple[Column, Value]]:
    """A column for each class of each task of segmentation."""
    for task in (task for task in tasks if task.kind == "segmentation"):
        for label, name in enumerate(task.class_names):
            if label or name != "other":
                column = Column(clean(f"{task.name} {name}"), "share", "higher")
                yield column, partial(Scores.of_task_class, task=task, label=label)


def about(layout: Layout, records: Sequence[Record]) -> str:
    """Words about the order of the classes."""
    if records[0].tasks:
        return "IoU in % of each class after the last step, task by task"
    if len({tuple(record.class_names) for record in records}) > 1:
        return "IoU in % of each class after the last step; runs differ in the order of arrival"
    counts = [len(step) for step in layout.steps]
    each = [f"{count} at step {number}" for number, count in enumerate(counts)]
    if len(counts) > 2 and len({*counts[1:]}) == 1:
        each = [each[0], f"{counts[1]} at each of {len(counts) - 1} steps"]
    return f"IoU in % of each class after the last step, in order of arrival: {', then '.join(each)}"
