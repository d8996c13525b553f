"""`--stability`: how much the order of methods depends on the rules, from stored matrices alone.

Under each rule of an axis (a grouping, a label rule, a seed, a class order, a size of test images) every method has a
score. Two rules of an axis are compared by Kendall's tau-b of these scores, and by the pairs of methods that they order
in opposite ways. All scores average the same runs: those of the largest block in which every method has every run.
"""

import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from densecl.errors import RecordError
from densecl.metrics.iou import UNSEEN
from densecl.records.layout import Scored, by_benchmark, clean
from densecl.records.record import Record
from densecl.tables.group import Unit
from densecl.tables.groupings import Grouping, grouping, groupings
from densecl.tables.listing import Line, Listing, letter
from densecl.tables.measure import View
from densecl.tables.table import Row, Table, table_of

OVER = ("stream.order", "evaluation.size")  # the settings that are rules here, beside the seed
AXES = ("seed", "class order", "size of test images")
LISTED = 12  # pairs of methods that a line names
MOST = 300  # sets of runs that a block is looked for in
HEADINGS = ("axis", "rules", "pairs that flip", "tau", "flips", "of all")


class Compared(NamedTuple):
    """Two rules of an axis."""

    axis: str
    rules: tuple[str, str]
    tau: float | None  # None where a rule gives all methods one score
    flips: tuple[tuple[str, str], ...]  # pairs of methods: the first is better under the first rule


class Stability(NamedTuple):
    """All comparisons of a benchmark."""

    benchmark: str
    methods: tuple[str, ...]
    units: tuple[Unit, ...]  # the runs that each method has
    compared: tuple[Compared, ...]
    left_out: tuple[str, ...]  # rows that take no part, and why

    @property
    def pairs(self) -> int:
        """The number of pairs of methods."""
        return len(self.methods) * (len(self.methods) - 1) // 2


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b of two lists of scores (scipy); None where one is constant."""
    from scipy.stats import kendalltau

    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    tau: Any = kendalltau(one, other)[0]
    return float(tau)


def flips(one: Sequence[float], other: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs of positions that the two lists order in opposite ways, the better one under the first list first."""
    first, second = np.asarray(one), np.asarray(other)
    opposite = (first[:, None] > first) & (second[:, None] < second)
    return [(int(i), int(j)) for i, j in np.argwhere(opposite)]


def largest_block(units: Mapping[str, Sequence[Unit]]) -> tuple[list[str], list[Unit]]:
    """The methods and units of the largest block in which each method has each unit; of equal ones, of most methods."""
    owned = {name: frozenset(own) for name, own in units.items()}
    sets = set(owned.values())
    while len(sets) < MOST and (common := {one & other for one, other in itertools.combinations(sets, 2)} - sets):
        sets |= common
    blocks = [
        (block, [name for name, own in owned.items() if block <= own]) for block in sorted(sets, key=sorted) if block
    ]
    if not blocks:
        return [], []
    block, names = max(blocks, key=lambda pair: (len(pair[1]) > 1, len(pair[0]) * len(pair[1]), len(pair[1])))
    return names, sorted(block)


def stability(
    records: Sequence[Record], where: Callable[[Record], str] | None = None, group: str | None = None
) -> list[Stability]:
    """The stability of each benchmark of classes that arrive over time; `where` names a run's folder in messages.

    `group` gives the score by which seeds, class orders and sizes are compared, with-bg by default. Runs on held-out
    images, unfinished ones, `joint`, and methods that are told the task are not ranked and take no part.

    Raises:
        RecordError: runs of one benchmark that do not have the same classes in steps of the same sizes.
    """
    streams = by_benchmark([record for record in records if not record.tasks])
    streams = {scored: members for scored, members in streams.items() if not scored.held_out}
    refuse_other_classes(streams, where or (lambda record: f"run {record.hash}"))
    chosen = grouping("with-bg" if group is None else group)
    return [of_benchmark(scored, members, chosen) for scored, members in streams.items()]


def refuse_other_classes(streams: Mapping[Scored, Sequence[Record]], where: Callable[[Record], str]) -> None:
    """RecordError for two runs of one benchmark whose classes, or sizes of steps, differ."""
    first: dict[str, tuple[Record, list[str], tuple[int, ...]]] = {}
    for scored, members in streams.items():
        sizes = tuple(map(len, scored.layout.steps))
        for record in members:
            names = sorted(record.class_names)
            other, others, steps = first.setdefault(scored.benchmark, (record, names, sizes))
            if names == others and sizes == steps:
                continue
            own = sorted({*names} ^ {*others})
            what = f"classes ({', '.join(map(clean, own[:LISTED]))})" if own else f"steps {sizes} (there {steps})"
            raise RecordError(
                f"{where(record)} and {where(other)} are runs of {clean(scored.benchmark)} with other {what}",
                "methods can be ranked under all rules only if all have the same classes",
            )


def of_benchmark(scored: Scored, records: Sequence[Record], chosen: Grouping) -> Stability:
    """The stability of records that share what `scored` says; `chosen` gives the score of an axis without one."""
    table, score = _scores(scored, records, View(chosen))
    ranked = [row for row in table.rows if row.ranked]
    several = len({row.backbone for row in ranked}) > 1
    names = {_id(row): f"{row.name} ({row.backbone})" if several else row.name for row in ranked}
    block, units = largest_block({_id(row): [u for u in row.units if u in score[_id(row)]] for row in ranked})
    methods = tuple(names[key] for key in block)
    left_out = tuple(f"{name} lacks runs that the others have" for key, name in names.items() if key not in block)
    rules = [] if len(block) < 2 else [*_views(scored, records), *_recorded(units)]
    compared: list[Compared] = []
    for axis, of_axis in itertools.groupby(rules, key=lambda rule: rule.axis):
        values = {}
        for rule in of_axis:
            own = score if rule.view is None else _scores(scored, records, rule.view)[1]
            taken = [unit for unit in units if rule.unit is None or unit[rule.unit[0]] == rule.unit[1]]
            if all(unit in own[key] for key in block for unit in taken):  # such as matrices for a label rule
                values[rule.name] = [statistics.fmean(own[key][unit] for unit in taken) for key in block]
        for one, other in itertools.combinations(values, 2):
            opposite = flips(values[one], values[other])
            pairs = tuple((methods[i], methods[j]) for i, j in opposite)
            compared.append(Compared(axis, (one, other), kendall(values[one], values[other]), pairs))
    return Stability(scored.name, methods, tuple(units), tuple(compared), left_out)


def listing(found: Stability) -> Listing:
    """The comparisons as `densecl table --stability` prints them."""
    lines = [
        Line(
            (
                one.axis,
                " · ".join(one.rules),
                which(one, found),
                tau_text(one),
                str(len(one.flips)),
                share_text(one, found),
            )
        )
        for one in found.compared
    ]
    if not lines:
        nothing = "nothing to compare: it takes two ranked methods with the same runs"
        return Listing(found.benchmark, HEADINGS, (), 3, (), (nothing, *found.left_out))
    return Listing(found.benchmark, HEADINGS, tuple(lines), 3, (), remarks(found))


def remarks(found: Stability) -> tuple[str, ...]:
    """Explain the letters and numbers."""
    return (
        "; ".join(f"{letter(index)} {name}" for index, name in enumerate(found.methods)),
        f"every score is the mean of the same {len(found.units)} runs of each method, or of those under the rule",
        "tau: Kendall's tau-b, 1 is the same order, -1 the opposite one",
        f"A > B: one of {found.pairs} pairs that the two rules order in opposite ways; A is better under the first",
        *found.left_out,
    )


def tau_text(one: Compared) -> str:
    """Tau with two places."""
    return "-" if one.tau is None else f"{round(one.tau, 2) + 0.0:.2f}"


def share_text(one: Compared, found: Stability) -> str:
    """The share of pairs of methods that flip, in percent."""
    return f"{100 * len(one.flips) / found.pairs:.0f} %"


def which(one: Compared, found: Stability) -> str:
    """The pairs that flip, by the letters of their methods."""
    letters = {name: letter(index) for index, name in enumerate(found.methods)}
    named = [f"{letters[better]} > {letters[worse]}" for better, worse in one.flips[:LISTED]]
    more = len(one.flips) - len(named)
    return ", ".join([*named, *([f"{more} more"] if more > 0 else [])])


class _Rule(NamedTuple):
    """Rule by which methods are scored: a view, or the units that have a value at a place."""

    axis: str
    name: str
    view: View | None = None
    unit: tuple[int, object] | None = None


def _views(scored: Scored, records: Sequence[Record]) -> list[_Rule]:
    """Groupings whose score is not another's by definition, and label rules, which act on the mean over the steps."""
    distinct: dict[object, Grouping] = {}
    for each in groupings():
        distinct[each.extra or each.everything(scored.layout)] = each  # the last of those that are alike: with-bg
    rules = [_Rule("grouping", each.name, View(each)) for each in distinct.values()]
    presets = {unseen: labels for labels, unseen in reversed(UNSEEN.items())}  # one of those that are alike
    average = grouping("step-average")
    return rules + [_Rule("label rule, over steps", labels, View(average, labels)) for labels in presets.values()]


def _recorded(units: Sequence[Unit]) -> list[_Rule]:
    """Seeds, class orders and sizes, as far as there are several."""
    rules = []
    for place, axis in enumerate(AXES):
        values = sorted({unit[place] for unit in units}, key=str)
        for number, value in enumerate(values if len(values) > 1 else ()):
            name = (
                f"seed {value}" if place == 0 else _order_name(value, number) if place == 1 else json.loads(str(value))
            )
            rules.append(_Rule(axis, str(name), unit=(place, value)))
    return rules


def _order_name(text: object, number: int) -> str:
    """A class order by its number and its first classes."""
    order = json.loads(str(text))
    shown = ", ".join(map(str, order[:3])) if isinstance(order, list) else str(order)
    return f"order {number} ({shown}, ...)"


def _scores(scored: Scored, records: Sequence[Record], view: View) -> tuple[Table, dict[str, dict[Unit, float]]]:
    """The table under a view, and the score of every run: by row, then by seed, class order and size."""
    table = table_of(scored, records, view, OVER)
    heading = view.grouping.extra or "all"
    cells = {_id(row): zip(row.units, table.cell(row, heading).values, strict=False) for row in table.rows}
    return table, {key: {u: v for u, v in values if v is not None} for key, values in cells.items()}


def _id(row: Row) -> str:
    """A row's name in any view: the run that stands first in it."""
    return f"{row.backbone} {row.name} {row.runs[0].hash} {row.runs[0].seed}"
