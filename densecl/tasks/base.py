"""What a task is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What the network must output at a step.

    Attributes:
        name: names the task in records, such as `voc`.
        kind: `segmentation`; a strategy lists the kinds it can learn.
        primary: the metric by which the task is ranked.
        higher_is_better: its direction.
        has_background: whether output 0 is a class of its own or stands for "something of another step".
    """

    name: str
    kind: str
    primary: str
    higher_is_better: bool = True
    has_background: bool = True
