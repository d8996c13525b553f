"""The classes of a benchmark's steps as records know them, and names of methods."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from densecl.errors import SpecError
from densecl.settings.grammar import parse

if TYPE_CHECKING:  # pydantic takes a while to import
    from densecl.records.record import Record

UPPER_BOUND = "joint"


@dataclass(frozen=True)
class Layout:
    """The labels of each step of a benchmark's stream, without background, in order of arrival."""

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
        """All classes."""
        return self.base + self.added

    def with_background(self, labels: tuple[int, ...], counted: bool = True) -> tuple[int, ...]:
        """`labels` and, where there is one and it is `counted`, background."""
        return ((0,) if counted and self.has_background else ()) + labels


class Scored(NamedTuple):
    """The benchmark, layout and kind of scores that the runs of one table share."""

    benchmark: str
    layout: Layout
    held_out: bool  # scored on held-out training images, not on the test images

    @property
    def name(self) -> str:
        """The benchmark, as headings of tables show it."""
        return clean(self.benchmark) + (" on held-out training images" if self.held_out else "")


def by_benchmark(records: Sequence["Record"]) -> dict[Scored, list["Record"]]:
    """The records of each table, in order of name."""
    groups: dict[Scored, list[Record]] = {}
    for record in records:
        data = record.settings.get("data")
        held_out = isinstance(data, dict) and bool(data.get("validation"))
        groups.setdefault(Scored(record.benchmark, layout_of(record, records), held_out), []).append(record)
    return dict(sorted(groups.items(), key=lambda item: (item[0].benchmark, item[0].layout.steps, item[0].held_out)))


def layout_of(record: "Record", others: Sequence["Record"]) -> Layout:
    """The stream of a record; where it does not say (old `joint` runs, unfinished ones), that of most `others`."""
    if _says(record):
        return _own_layout(record)
    same = [o for o in others if (o.benchmark, o.has_background) == (record.benchmark, record.has_background)]
    layouts = Counter(_own_layout(other) for other in same if _says(other))
    return layouts.most_common(1)[0][0] if layouts else _own_layout(record)


def _says(record: "Record") -> bool:
    return bool(record.planned_steps) or (record.status == "finished" and len(record.steps) > 1)


def _own_layout(record: "Record") -> Layout:
    steps = record.planned_steps or [step.new_classes for step in record.steps]
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
    return _names(strategy)[0]


def method_name(strategy: str) -> str:
    """Strategy and plugins without arguments: `mib+replay` of `mib(distillation=5)+replay`."""
    return "+".join(_names(strategy))


def _names(strategy: str) -> list[str]:
    try:
        return [call.name for call in parse(strategy)]
    except SpecError:
        return [strategy]


def run_parts(benchmark: str, method: str, backbone: str, encoder: object, seed: int, run: str) -> tuple[str, ...]:
    """Names of the folders of a run, before characters that folders cannot have are replaced; `run` is its hash."""
    return benchmark, method, f"{backbone}-{encoder}" if encoder else backbone, f"s{seed}-{run}"


def clean(text: str) -> str:
    """`text` on one line without control characters: names come from files that anyone may have written."""
    return "".join(character if character.isprintable() else " " for character in text)
