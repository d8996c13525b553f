"""What a column of a table is."""

from typing import Literal, NamedTuple

Values = dict[str, float | None]  # by heading


class Column(NamedTuple):
    """A measured column: `share` is a fraction of 1, `time` is in seconds, `number` has its own unit.

    Attributes:
        labels: whose IoU a column of class ranges averages; empty for all others.
        part: which of a paper's columns it is: base, added or all.
    """

    heading: str
    kind: Literal["share", "time", "number"]
    better: Literal["higher", "lower", ""] = ""
    labels: tuple[int, ...] = ()
    part: Literal["base", "added", "all", ""] = ""
