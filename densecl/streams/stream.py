"""Streams: the steps of a benchmark, their classes or tasks, groups and names. They hold no data.

A class-incremental step is one task whose outputs grow; a sequence has a task a step. Everything that follows asks the
stream: which heads a network has, which of them are evaluated after a step, and what label each output stands for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from densecl.errors import SettingError
from densecl.tasks import Segmentation, Task

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Step:
    """One step of a stream."""

    step: int  # its number, from 0
    task: Task  # what the network must output
    new_classes: tuple[int, ...]  # labels that arrive at this step
    seen_classes: tuple[int, ...]  # labels of this and all earlier steps, background excluded
    n_outputs: int  # of the step's head after it, output 0 included


@dataclass(frozen=True)
class Stream:
    """The steps of a benchmark in the form in which a method learns them."""

    kind: Literal["classes", "tasks"]  # one task whose classes arrive over time, or a sequence of tasks
    steps: tuple[Step, ...]  # the trained ones; one for joint training
    groups: Groups  # labels of the benchmark's steps, in order of arrival; of a sequence, each task's own
    class_names: tuple[str, ...]  # by label; [0] is background, or `other` where there is none. Of a sequence: empty
    names: tuple[tuple[str, ...], ...]  # class names of each head; empty for a task without classes
    by_task: bool  # each step has a head of its own: in a sequence, and where the method is told the step
    setting: str  # which images a step has (`protocol.SETTINGS`), "domain" or "tasks"
    labels: str  # the label preset (`protocol.LABELS`), or "tasks"

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The task of each step."""
        return tuple(step.task for step in self.steps)

    @property
    def has_background(self) -> bool:
        """True if output 0 is a class of its own."""
        return self.tasks[0].has_background

    @property
    def joint(self) -> bool:
        """True if one step trains what the benchmark's steps bring one after another."""
        return len(self.steps) == 1 < len(self.groups)

    def learnt(self, step: int) -> Groups:
        """Labels of the benchmark's steps that are learnt after a step: of joint training, all."""
        return self.groups if self.joint else self.groups[: step + 1]

    def evaluations(self, step: int) -> list[tuple[int, ...]]:
        """The heads, by their step, that answer in each evaluation after a step.

        A class-incremental stream has one evaluation: of its one head, or of a head a step whose counts are added up.
        A sequence has one for each task learnt so far.
        """
        if self.kind == "tasks":
            return [(head,) for head in range(step + 1)]
        return [tuple(range(step + 1)) if self.by_task else (step,)]

    def labels_of(self, head: int) -> tuple[int, ...]:
        """The label that each output of a head stands for."""
        if self.kind == "tasks":
            return tuple(range(len(self.names[head])))
        return (0, *self.groups[head]) if self.by_task else tuple(range(len(self.class_names)))


def class_stream(
    name: str,
    groups: Sequence[Sequence[int]],
    class_names: Sequence[str],
    *,
    has_background: bool = True,
    setting: str = "overlapped",
    labels: str = "plop2021",
    joint: bool = False,
    by_task: bool = False,
) -> Stream:
    """A class-incremental stream on the data set `name`; see `Stream` for the arguments.

    `groups` holds the labels of each step in order of arrival, 1, 2, ...; none for the later domains of a
    domain-incremental stream. With `joint` one step brings all classes; with `by_task` each step is a task of its own,
    background and its classes, which the method is told.
    """
    groups = tuple(tuple(group) for group in groups)
    trained: Groups = (tuple(label for group in groups for label in group),) if joint else groups
    steps, seen = [], ()
    for number, new in enumerate(trained):
        seen = (*seen, *new)
        own, classes = (f"step{number}", len(new)) if by_task else (name, len(class_names) - 1)
        task = Segmentation(own, classes=classes, has_background=has_background)
        steps.append(Step(number, task, new, seen, 1 + len(new if by_task else seen)))
    names = tuple(class_names)
    return Stream("classes", tuple(steps), groups, names, (names,), by_task, setting, labels)


def task_stream(tasks: Sequence[Task], names: Sequence[Sequence[str]]) -> Stream:
    """A sequence of tasks, each with a head of its own; `names` of classes by label are empty for tasks without.

    SettingError for no task, a name that `check_names` refuses, or a task without a number of outputs.
    """
    check_names([task.name for task in tasks])
    steps = []
    for number, (task, own) in enumerate(zip(tasks, names, strict=True)):
        if task.outputs is None:
            raise SettingError(f"task '{task.name}' does not say how many outputs it has", "name its classes")
        labels = tuple(range(1, len(own)))
        steps.append(Step(number, task, labels, labels, task.outputs))
    groups = tuple(step.new_classes for step in steps)
    return Stream("tasks", tuple(steps), groups, (), tuple(map(tuple, names)), True, "tasks", "tasks")


def check_names(names: Sequence[str]) -> None:
    """SettingError for no name, one with other characters than letters, digits, - and _, or one twice."""
    if not names:
        raise SettingError("the sequence has no task", "name one or more")
    for name in names:
        if not name or not all(c.isalnum() or c in "-_" for c in name):
            raise SettingError(f"'{name}' cannot name a task", "use letters, digits, - and _")
        if names.count(name) > 1:
            raise SettingError(f"two tasks are named '{name}'", "give each a name of its own")
