"""Which labels a benchmark's columns average: its steps, as records know them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from densecl.errors import SpecError
from densecl.records.record import Record
from densecl.settings.grammar import parse

UPPER_BOUND = "joint"


@dataclass(frozen=True)
class Layout:
    """The steps of a benchmark's stream and what lies in each range. Labels, in order of arrival."""

    steps: tuple[tuple[int, ...], ...]
    has_background: bool

    @property
    def base(self) -> tuple[int, ...]:
        """Classes of step 0."""
        return self.steps[0] if self.steps else ()

    @property
    def added(self) -> tuple[int, ...]:
        """Classes of all later steps."""
        return tuple(label for step in self.steps[1:] for label in step)

    @property
    def classes(self) -> tuple[int, ...]:
        """All classes, without background."""
        return self.base + self.added

    def with_background(self, labels: tuple[int, ...], counted: bool = True) -> tuple[int, ...]:
        """`labels` and, where there is one and it is `counted`, background."""
        return ((0,) if counted and self.has_background else ()) + labels


def by_benchmark(records: Sequence[Record]) -> dict[tuple[str, Layout], list[Record]]:
    """The records of each table: those of one benchmark, as far as its stream is the same. In order of name."""
    groups: dict[tuple[str, Layout], list[Record]] = {}
    for record in records:
        groups.setdefault((record.benchmark, layout_of(record, records)), []).append(record)
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], item[0][1].steps)))


def layout_of(record: Record, others: Sequence[Record]) -> Layout:
    """The stream as the record knows it; a run of one step (`joint`) or an unfinished one may have to ask others."""
    if record.planned_steps:
        return _as_layout(record.planned_steps, record)
    own = _as_layout([step.new_classes for step in record.steps], record)
    if record.status == "finished" and len(record.steps) > 1:
        return own
    neighbours = [
        other
        for other in others
        if (other.benchmark, other.has_background) == (record.benchmark, record.has_background)
    ]
    known = [_as_layout(other.planned_steps, other) for other in neighbours if other.planned_steps]
    known += [
        _as_layout([s.new_classes for s in o.steps], o)
        for o in neighbours
        if o.status == "finished" and len(o.steps) > 1
    ]
    return Counter(known).most_common(1)[0][0] if known else own


def _as_layout(steps: Sequence[Sequence[int]], record: Record) -> Layout:
    return Layout(tuple(tuple(label for label in step if label != 0) for step in steps), record.has_background)


def ranges(labels: Iterable[int]) -> str:
    """`1-15` or `1-3, 7`."""
    runs: list[list[int]] = []
    for label in sorted(labels):
        if runs and label == runs[-1][1] + 1:
            runs[-1][1] = label
        else:
            runs.append([label, label])
    return ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in runs)


def main_name(strategy: str) -> str:
    """The strategy's name without arguments and plugins: `mib` of `mib(distillation=5)+replay`."""
    try:
        return parse(strategy)[0].name
    except SpecError:
        return strategy


def method_name(strategy: str) -> str:
    """Strategy and plugins without arguments: `mib+replay` of `mib(distillation=5)+replay`."""
    try:
        return "+".join(call.name for call in parse(strategy))
    except SpecError:
        return strategy


def clean(text: str) -> str:
    """`text` on one line without control characters: names come from files that anyone may have written."""
    return "".join(character if character.isprintable() else " " for character in text)
