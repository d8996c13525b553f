"""`--honest`: of each row, what a referee asks for, and what of it is missing. Nothing is hidden, nothing is ranked.

BWT and FWT: with R[k, i] the mean IoU of the classes of step i after step k, background left out, and T the last step,

    BWT = mean over i < T of R[T, i] - R[i, i]       Lopez-Paz and Ranzato, NeurIPS 2017, eq. 3
    FWT = mean over i > 0 of R[i, i] - J[i]          Wang et al., TPAMI 2024, section 2.2

J[i] is the mean IoU of the classes of step i in the joint run of the same network, seed and class order; with that
reference FWT is the negative of intransigence (Chaudhry et al., ECCV 2018, eq. 4). FWT as Lopez-Paz and Ranzato have it
is 0 here: a class has no output before its step.
"""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from densecl.records.layout import UPPER_BOUND, Layout, Scored, by_benchmark, clean, main_name
from densecl.records.record import Record
from densecl.tables.group import unit_of
from densecl.tables.listing import Line, Listing
from densecl.tables.measure import BothMeans, View
from densecl.tables.scores import MIB, Scores, segmentation
from densecl.tables.table import FOREIGN, Row, Table, table_of, told
from densecl.terminal import humanise

ORDER = "stream.order"
FEWEST = 3  # seeds, and class orders
CONTROL = "frozen"  # the strategy that trains new heads alone
SHARED = 2  # rows that begin alike before another's start is called its own


class Examined(NamedTuple):
    """A row, averaged over seeds and class orders: what is there, what a method had besides, and what is missing."""

    row: Row
    seeds: int
    orders: int
    with_background: float | None
    foreground: float | None
    worst: float | None  # mean over seeds under the worst class order, of several
    first: float | None  # mIoU after step 0
    forgetting: float | None
    backward: float | None
    forward: float | None
    seconds: float | None
    memory: float | None  # bytes, the peak of all steps
    kept: float | None  # bytes from earlier steps
    extras: tuple[str, ...]
    lacks: tuple[str, ...]


def backward_transfer(by_step: Sequence[Mapping[int, float]], groups: Sequence[Sequence[int]]) -> float | None:
    """Mean change of the steps before the last one since they were learnt; `by_step` has IoU by label after each step.

    None for one step alone, or where a step's score is unknown.
    """
    last = len(by_step) - 1
    pairs = [(_mean(by_step[last], groups[i]), _mean(by_step[i], groups[i])) for i in range(last)]
    losses = [now - then for now, then in pairs if now is not None and then is not None]
    return statistics.fmean(losses) if losses and len(losses) == last else None


def forward_transfer(
    by_step: Sequence[Mapping[int, float]], groups: Sequence[Sequence[int]], reference: Mapping[int, float]
) -> float | None:
    """Mean of what the later steps' classes have when learnt above a `reference`, by label; None as above."""
    steps = range(1, len(by_step))
    pairs = [(_mean(by_step[i], groups[i]), _mean(reference, groups[i])) for i in steps]
    gains = [now - other for now, other in pairs if now is not None and other is not None]
    return statistics.fmean(gains) if gains and len(gains) == len(steps) else None


def examine(records: Sequence[Record]) -> list[tuple[Table, list[Examined]]]:
    """The table of each benchmark of classes that arrive over time, over all class orders, and its rows examined."""
    streams = by_benchmark([record for record in records if not record.tasks])
    return [examine_benchmark(scored, members) for scored, members in streams.items()]


def examine_benchmark(scored: Scored, records: Sequence[Record]) -> tuple[Table, list[Examined]]:
    """The same of the records that share what `scored` says."""
    table = table_of(scored, records, View(BothMeans()), (ORDER,))
    starts = _common_starts(table.rows)
    joint = {(_network(run), *unit_of(run, (ORDER,))): run for run in _runs_of(table, UPPER_BOUND)}
    controls = {_network(run) for run in _runs_of(table, CONTROL)}
    return table, [_examined(row, table, scored.layout, starts, joint, controls) for row in table.rows]


def listing(table: Table, rows: Sequence[Examined]) -> Listing:
    """The examined rows as `densecl table --honest` prints them."""
    several = len({row.row.backbone for row in rows}) > 1
    lines = [
        Line(
            (f"{name_of(row.row)} ({row.row.backbone})" if several else name_of(row.row), *texts(row)),
            (", ".join(row.lacks) or "nothing", ", ".join(row.extras)),
        )
        for row in rows
    ]
    return Listing(table.benchmark, ("strategy", *HEADINGS), tuple(lines), 1, ("lacks", "had besides"), remarks(table))


def remarks(table: Table) -> tuple[str, ...]:
    """Explain the columns."""
    return (
        "mIoU in %, mean over seeds and class orders; worst: mean over seeds under the worst class order",
        "BWT: what earlier steps gained since they were learnt; FWT: what later steps have above joint when learnt",
        "every run of densecl is scored with its last checkpoint, foreign rows with what their authors declare",
        *(note for note in table.notes if note.startswith(("records changed", "mixed", "scored on held-out"))),
    )


HEADINGS = (
    "seeds", "orders", "all", "all fg", "worst", "step 0", "forgetting", "BWT", "FWT", "time", "peak MiB", "kept MiB",
)  # fmt: skip


def texts(row: Examined) -> tuple[str, ...]:
    """The texts of a row under `HEADINGS`."""
    shares = (row.with_background, row.foreground, row.worst, row.first)
    changes = (row.forgetting, row.backward, row.forward)
    sizes = (row.memory, row.kept)
    return (
        str(row.seeds),
        str(row.orders),
        *("-" if value is None else f"{round(100 * value, 1) + 0.0:.1f}" for value in shares),
        *("-" if value is None else f"{round(100 * value, 1) + 0.0:+.1f}" for value in changes),
        "-" if row.seconds is None else humanise(row.seconds),
        *("-" if size is None else f"{size / MIB:.1f}" for size in sizes),
    )


def name_of(row: Row) -> str:
    """Strategy, note and progress."""
    name = f"{row.name}{FOREIGN if row.foreign else ''}"
    return " ".join(part for part in (name, f"({row.progress})" if row.progress else "") if part)


def kept_bytes(row: Row) -> float | None:
    """Bytes that are kept from earlier steps, the most of all steps, mean over runs; of foreign ones nobody knows."""
    return _average([max((s.stored_bytes for s in run.steps), default=0) for run in row.runs if run.foreign is None])


def _examined(
    row: Row,
    table: Table,
    layout: Layout,
    starts: Mapping[Any, str],
    joint: Mapping[Any, Record],
    controls: set[str],
) -> Examined:
    scores = [Scores(run) for run in row.runs]
    is_joint = main_name(row.strategy) == UPPER_BOUND
    means = table.cell(row, "all")
    by_order: dict[str, list[float]] = {}
    for unit, value in zip(row.units, means.values, strict=False):
        if value is not None:
            by_order.setdefault(unit[1], []).append(value)
    orders, seeds = {unit[1] for unit in row.units}, {unit[0] for unit in row.units}
    groups = layout.steps
    forward = []
    for score, run in zip(scores, row.runs, strict=True):
        other = joint.get((_network(run), *unit_of(run, (ORDER,))))
        reference = Scores(other).by_step if other is not None else []
        if reference and not is_joint:
            forward.append(forward_transfer(score.by_step, groups, reference[-1]))
    foreground = means.mean if not layout.has_background else table.cell(row, "all fg").mean
    examined = Examined(
        row,
        len(seeds),
        len(orders),
        means.mean if layout.has_background else None,
        foreground,
        min(map(statistics.fmean, by_order.values())) if len(by_order) > 1 else None,
        None if is_joint else _average([score.mean(layout.with_background(layout.base), 0) for score in scores]),
        _average([score.forgetting() for score in scores]),
        None if is_joint else _average([backward_transfer(score.by_step, groups) for score in scores]),
        _average(forward) if len(forward) == len(row.runs) else None,
        _average([score.seconds() or None for score in scores]),
        _average([max((s.peak_memory or 0 for s in run.steps), default=0) or None for run in row.runs]),
        kept_bytes(row),
        extras(row, starts),
        (),
    )
    return examined._replace(lacks=_lacks(examined, layout, joint, controls))


def _lacks(row: Examined, layout: Layout, joint: Mapping[Any, Record], controls: set[str]) -> tuple[str, ...]:
    """List what a referee asks for and does not find."""
    networks = {_network(run) for run in row.row.runs}
    upper = any(network in networks for network, *_ in joint)
    own = main_name(row.row.strategy)
    scored = row.foreground is not None and (row.with_background is not None or not layout.has_background)
    steps = len(layout.steps) > 1 and own != UPPER_BOUND
    missing = [
        (f"the end of the run ({row.row.progress})", bool(row.row.progress)),
        (f"seeds ({row.seeds} of {FEWEST})", row.seeds < FEWEST),
        (f"class orders ({row.orders} of {FEWEST})", row.orders < FEWEST),
        ("joint with this network", not upper),
        ("frozen with this network", not networks & controls and own != UPPER_BOUND),
        ("scores of each class", not scored),
        ("scores after each step", steps and scored and row.backward is None),
        ("joint of these seeds and orders", steps and upper and row.forward is None),
        ("time", row.seconds is None),
        ("peak memory", row.memory is None),
        ("bytes kept", row.kept is None),
        *_undeclared(row.row.runs[0]),
    ]
    return tuple(text for text, is_missing in missing if is_missing)


def _undeclared(run: Record) -> list[tuple[str, bool]]:
    """List what the author of foreign predictions does not say, and weights chosen by the test images."""
    if run.foreign is None:
        return []
    values = run.foreign.declared.model_dump()
    chosen = ("weights that the test images did not choose", values["checkpoint"] == "test")
    return [chosen, *((f"declaration of {key.replace('_', ' ')}", value is None) for key, value in values.items())]


def extras(row: Row, starts: Mapping[Any, str] | None = None) -> tuple[str, ...]:
    """Name all that a method had and plain methods do not: memory, labels, knowledge, weights, a step 0 of its own.

    `starts` are the scores after step 0 that most rows share; without them nothing is said about step 0.
    """
    starts = starts or {}
    first = row.runs[0]
    found = [told(clean(first.oracle))] if first.oracle is not None else []
    found += [f"foreign, self-declared: {clean(first.foreign.words)}"] if first.foreign is not None else []
    plugins = first.settings.get("plugins", {})
    for values in (first.settings.get("strategy_values", {}), *plugins.values()):
        if isinstance(values, dict) and isinstance(values.get("memory"), int):
            labels = clean(str(values.get("labels", "stored")))
            found.append(f"{values['memory']} images of earlier steps, labels {labels}")
        if isinstance(values, dict) and values.get("source") == "real":
            found.append("real images of earlier classes")
    notes = [note for step in first.steps[-1:] for note in step.notes.values()]
    found += [clean(str(note["leak"])) for note in notes if "leak" in note]
    weights = first.settings.get("backbone_values", {}).get("weights")
    found += [f"weights {clean(str(weights))}"] if weights not in (None, "none") else []
    own = any(_start(run) not in (None, starts.get(unit_of(run, (ORDER,)))) for run in row.runs)
    if own and main_name(row.strategy) != UPPER_BOUND and starts.keys() & {unit_of(r, (ORDER,)) for r in row.runs}:
        found.append("a step 0 of its own")
    return tuple(dict.fromkeys(found))


def _common_starts(rows: Sequence[Row]) -> dict[Any, str]:
    """The score after step 0 that most rows share, by seed and class order; without those that no two rows share."""
    counts: dict[Any, Counter[str]] = {}
    for row in rows:
        for run in row.runs if main_name(row.strategy) != UPPER_BOUND else ():
            if (start := _start(run)) is not None:
                counts.setdefault(unit_of(run, (ORDER,)), Counter())[start] += 1
    leading = {unit: count.most_common(1)[0] for unit, count in counts.items()}
    return {unit: start for unit, (start, rows_alike) in leading.items() if rows_alike >= SHARED}


def _start(run: Record) -> str | None:
    """The scores after step 0, as a text; None where there are none."""
    scored = segmentation(run.steps[0]) if run.steps else None
    return None if scored is None else json.dumps(scored.metrics["iou"])


def _runs_of(table: Table, strategy: str) -> list[Record]:
    return [run for row in table.rows if main_name(row.strategy) == strategy and not row.progress for run in row.runs]


def _network(run: Record) -> str:
    """The backbone with its arguments."""
    return json.dumps([run.backbone, run.settings.get("backbone_values")], sort_keys=True)


def _mean(iou: Mapping[int, float], labels: Sequence[int]) -> float | None:
    known = [iou[label] for label in labels if label in iou]
    return statistics.fmean(known) if known else None


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
