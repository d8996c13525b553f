"""Our numbers beside a paper's, row by row, with what differs between the two."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from densecl.records.published import PARTS, Reported, canonical
from densecl.records.record import flatten
from densecl.reproduce.measures import Run, lacking, measure, scores_of
from densecl.reproduce.plan import Line, TablePlan
from densecl.sweep.jobs import Job
from densecl.sweep.preview import runs
from densecl.tables.agreement import mismatches
from densecl.tables.listing import Line as Shown
from densecl.tables.listing import Listing
from densecl.terminal import humanise

SMALL = (
    "small: proves that the command works; few iterations on embedded data, not to be compared with the paper's numbers"
)
NOTHING = "-"


def compare(plan: TablePlan, rows: Sequence[Line], jobs: Sequence[Job], small: bool) -> Listing:
    """The table of a plan whose runs are `jobs`; without differences where it is `small`."""
    names = _names([row.theirs for row in rows if row.theirs])
    shown = [
        line._replace(cells=(str(number), *line.cells))
        for number, row in enumerate(rows, 1)
        for line in _lines(row, names, [jobs[k] for k in row.runs], small)
    ]
    records = [record for job in jobs if (record := job.record()) is not None]
    seconds = sum(step.seconds for record in records for step in record.steps if not step.shared)
    several = max((len(row.runs) for row in rows), default=1) > 1
    remarks = [
        *([SMALL] if small else ["difference: ours minus the paper's"]),
        *(["ours: mean and standard deviation over seeds"] if several else []),
        *dict.fromkeys(text for row in rows if row.theirs for text in _about(row.theirs)),
        *(f"not repeated: {each.why}" for each in plan.not_repeated if not each.rows),
        *dict.fromkeys(_galleries(jobs)),
        f"{runs(len(records))}, {humanise(seconds)} of training",
    ]
    title = f"{plan.name.replace('-', ':', 1)}  {plan.summary}" + (" (small)" if small else "")
    headings = ("", "row", "score", "paper", "ours", *(() if small else ("difference",)))
    return Listing(title, headings, tuple(shown), 3, ("differs",), tuple(remarks))


def _lines(row: Line, names: Mapping[int, str], jobs: Sequence[Job], small: bool) -> Iterator[Shown]:
    done = [Run(record, job.plan.folder) for job in jobs if (record := job.record()) and record.status == "finished"]
    theirs = row.theirs
    if theirs is None:
        values = [scores_of(run.record) for run in done]
        differs = "the paper prints no such number" if done else "its run did not finish"
        for name in values[0] if values else ("",):
            ours = [found for each in values if (found := each.get(name)) is not None]
            yield _shown(row.name, name, None, ours, differs, small)
        return
    place = [f"task {theirs.task}"] if theirs.task else []
    place += [f"after task {theirs.after}"] if theirs.after else []
    numbers = theirs.numbers
    for name, value in numbers.items():
        if value is not None:
            ours = [found for run in done if (found := measure(run, theirs, name)) is not None]
            score = ", ".join([*([" ".join(place)] if place else []), f"mIoU % of {name}" if name in PARTS else name])
            why = lacking(done[0].record, theirs, name) if done and not ours else ""
            yield _shown(names[id(theirs)], score, value, ours, why or _differs(row, theirs, done), small)


def _names(rows: Sequence[Reported]) -> dict[int, str]:
    """A name for each published row, by its identity: method, variant and what else tells it from rows like it."""
    alike: dict[tuple[object, ...], list[Reported]] = {}
    for row in rows:
        alike.setdefault((row.table, row.method, row.variant, row.task, row.after), []).append(row)
    names = {}
    for group in alike.values():
        facts = [
            {"": canonical(row.benchmark)[1], "backbone": row.backbone, **flatten(row.settings), **row.strategy}
            for row in group
        ]
        for row, own in zip(group, facts, strict=True):
            telling = [key for key, value in own.items() if any(other.get(key) != value for other in facts)]
            texts = [
                f"{key.rpartition('.')[2]}={own[key]}" if key and "(" not in str(own[key]) else str(own[key])
                for key in telling
            ]
            names[id(row)] = ", ".join(filter(None, (row.method, row.variant, *texts)))
    return names


def _differs(row: Line, theirs: Reported, done: Sequence[Run]) -> str:
    if row.why:
        return f"not repeated: {row.why}"
    if not done:
        return "its run did not finish"
    hidden = {key: "" for key in ("variant",) if key in row.declared}
    return "; ".join(mismatches(done[0].record, theirs.model_copy(update=hidden), theirs.grouping))


def _shown(row: str, score: str, theirs: float | None, ours: Sequence[float], differs: str, small: bool) -> Shown:
    """A line; ours has the decimals of the paper's number, but at least one in percent and else three digits."""
    printed = NOTHING if theirs is None else f"{theirs:.10g}"
    mean = statistics.fmean(ours) if ours else None
    size = 1 if not mean else math.floor(math.log10(abs(mean)))
    fewest = 1 if "%" in score else min(2 - size, 4)
    places = max(len(printed.partition(".")[2]), fewest, 0)
    spread = f" ± {statistics.stdev(ours):.{places}f}" if len(ours) > 1 else ""
    measured = NOTHING if mean is None else f"{mean:.{places}f}{spread}"
    apart = NOTHING if mean is None or theirs is None else f"{mean - theirs:+.{places}f}"
    return Shown((row, score, printed, measured, *(() if small else (apart,))), (differs,))


def _about(theirs: Reported) -> Iterator[str]:
    """Remarks on a published table."""
    if theirs.certainty != "read":
        yield f"{theirs.label}: {theirs.certainty}"
    if theirs.inferred:
        yield f"{theirs.label}: {', '.join(theirs.inferred)} inferred, not stated"
    if theirs.remark:
        yield f"{theirs.label}: {theirs.remark}"


def _galleries(jobs: Sequence[Job]) -> Iterator[str]:
    """The pictures of the best synthetic image of each class."""
    from densecl.data.places import cache_folder
    from densecl.errors import SettingError
    from densecl.finished.judge import banks_of

    for job in jobs:
        record = job.record()
        if record is None:
            continue
        try:
            banks = banks_of(record)
        except SettingError:  # it replayed none
            continue
        for bank in banks:
            picture = cache_folder() / "banks" / bank["key"] / "gallery.png"
            yield f"best synthetic image of each class: {picture}"
