"""Why a run forgot: what each old class lost after each step, split by `densecl.metrics.anatomy`."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densecl.errors import RecordError
from densecl.metrics.anatomy import Parts, Split, pixels_of, split
from densecl.metrics.iou import fold_unseen, iou_from_confusion, unseen_under
from densecl.records.layout import by_benchmark, clean
from densecl.records.probed import Probed, read_probed
from densecl.records.record import Record
from densecl.tables.listing import Line, Listing
from densecl.tables.measure import BothMeans, View
from densecl.tables.scores import segmentation
from densecl.tables.table import table_of

HEADINGS = (
    "learnt", "now", "lost", "features", "head", "to background", "to newer", "to older", "taken",
    "probe then", "probe now",
)  # fmt: skip
GROUPS = ("base", "added", "all")  # classes of step 0, of later steps, both; each learnt before the step


class Lost(NamedTuple):
    """Loss of one class, or of the mean of a group, after a step; the IoUs are fractions of 1."""

    step: int
    name: str
    learnt: float  # IoU of the reference: the step that brought the class, or joint
    now: float
    probe_then: float  # IoU of the linear head on the reference's features
    probe_now: float
    split: Split


def losses(record: Record, probed: Probed, step: int) -> dict[int, Lost]:
    """Measure what each class of an earlier step lost, by label; one without a pixel in the test images is left out."""
    groups = record.planned_steps or [done.new_classes for done in record.steps]
    head, probe = _iou(_head(record, step)), _iou(probed.probes[step])
    unused, taken = np.asarray(probed.unused[step]), np.asarray(probed.taken[step])
    result: dict[int, Lost] = {}
    for origin, group in enumerate(groups[:step]):
        newer = {label for later in groups[origin + 1 :] for label in later}
        then = (_iou(_head(record, origin)), _iou(probed.probes[origin]))
        if probed.joint is not None and origin > 0:
            then = (_iou(probed.joint.head), _iou(probed.joint.probe))
        for label in group:
            iou = [float(values[label]) for values in (*then, head, probe)]
            if label == 0 or any(value != value for value in iou):
                continue
            learnt, probe_then, now, probe_now = iou
            parts = split(now, probe_now, learnt, probe_then, pixels_of(unused, taken, label, newer))
            result[label] = Lost(step, clean(record.class_names[label]), learnt, now, probe_then, probe_now, parts)
    return result


def by_group(record: Record, lost: dict[int, Lost], step: int) -> dict[str, Lost]:
    """Means over the classes of each group."""
    groups = record.planned_steps or [done.new_classes for done in record.steps]
    members = {"base": [*groups[0]], "added": [label for group in groups[1:step] for label in group]}
    members["all"] = members["base"] + members["added"]
    known = {name: [lost[label] for label in labels if label in lost] for name, labels in members.items()}
    return {name: mean(step, name, of_group) for name, of_group in known.items() if of_group}


def mean(step: int, name: str, lost: Sequence[Lost]) -> Lost:
    """The mean of all numbers; since each split adds up, so does that of the means."""
    learnt, now = (statistics.fmean(getattr(each, key) for each in lost) for key in ("learnt", "now"))
    then, probe = (statistics.fmean(getattr(each, key) for each in lost) for key in ("probe_then", "probe_now"))
    representation = statistics.fmean(each.split.representation for each in lost)
    parts = zip(*(each.split.classifier for each in lost), strict=True)
    return Lost(step, name, learnt, now, then, probe, Split(representation, Parts(*map(statistics.fmean, parts))))


def listings(record: Record, probed: Probed) -> list[Listing]:
    """The means of groups after each step, and the classes after the last one, in points of IoU."""
    last = len(probed.probes) - 1
    grouped, classes = [], []
    for step in range(1, last + 1):
        lost = losses(record, probed, step)
        grouped += [Line((str(step), name, *texts(one))) for name, one in by_group(record, lost, step).items()]
        if step == last:
            classes = [Line((str(label), one.name, *texts(one))) for label, one in sorted(lost.items())]
    name = f"{clean(record.benchmark)}  {clean(record.strategy)}  {clean(record.backbone)}  seed {record.seed}"
    if not grouped:
        iou = 100 * float(np.nanmean(_iou(probed.probes[-1])))
        nothing = f"no class is older than the last step; a linear head on its features has an mIoU of {iou:.1f} %"
        return [Listing(name, (), (), 0, (), (nothing,))]
    return [
        Listing(f"{name}: IoU lost", ("step", "classes", *HEADINGS), tuple(grouped), 2),
        Listing(
            f"the same by class, after step {last}",
            ("label", "class", *HEADINGS),
            tuple(classes),
            2,
            (),
            remarks(probed),
        ),
    ]


def summary(records: Sequence[Record], where: Callable[[Record], str]) -> list[Listing]:
    """List what the old classes of each row lost after the last step, mean over the seeds that were probed.

    `where` gives the folder of a run. Benchmarks without such a run are left out.

    Raises:
        RecordError: a probe cannot be read.
    """
    result = []
    for scored, members in by_benchmark(records).items():
        lines, probes = [], []
        for row in table_of(scored, members, View(BothMeans()), ()).rows:
            found = [(run, probed) for run in row.runs if (probed := read_probed(Path(where(run)), run)) is not None]
            lost = [one for run, probed in found if (one := after_last(run, probed)) is not None]
            if lost:
                lines.append(Line((row.name, str(len(lost)), *texts(mean(lost[0].step, "all", lost)))))
                probes += [probed for _, probed in found]
        if lines:
            title = f"{clean(scored.benchmark)}: IoU that old classes lost"
            result.append(Listing(title, ("strategy", "seeds", *HEADINGS), tuple(lines), 1, (), remarks(probes[0])))
    return result


def after_last(record: Record, probed: Probed) -> Lost | None:
    """The mean over all old classes after the last step; None where there are none, or it was probed before its end."""
    step = len(probed.probes) - 1
    if step < 1 or step + 1 != len(record.planned_steps or record.steps):
        return None
    return by_group(record, losses(record, probed, step), step).get("all")


def remarks(probed: Probed) -> tuple[str, ...]:
    """Explain the columns."""
    reference = "the step that brought it" if probed.joint is None else "step 0, or joint for a class of a later step"
    return (
        f"in points of IoU. learnt: with the network of {reference}; lost = learnt - now = features + head",
        "features: what a linear head fitted on the features lost; head: what the method's own lost beyond that",
        "of the latter, by pixels that the linear head finds: called background, a newer class, another older class; "
        "taken: pixels of others called the class",
        f"probe: a linear head by ridge regression, gamma {probed.gamma:g}, on {probed.images} images of all classes",
    )


def texts(one: Lost) -> tuple[str, ...]:
    """The numbers under `HEADINGS`."""
    return (
        *(f"{100 * value:.1f}" for value in (one.learnt, one.now)),
        *(signed(value) for value in (one.split.lost, one.split.representation, one.split.head)),
        *map(signed, one.split.classifier),
        *(f"{100 * value:.1f}" for value in (one.probe_then, one.probe_now)),
    )


def signed(share: float) -> str:
    """Points of IoU with their sign."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _head(record: Record, step: int) -> np.ndarray:
    """The counts of the method's head after a step, with classes not learnt yet as the run scores them."""
    scored = segmentation(record.steps[step])
    seen = max({0}.union(*(done.new_classes for done in record.steps[: step + 1])))
    labels = str(record.settings.get("stream", {}).get("labels", "plop2021"))
    if scored is None or scored.confusion is None:
        raise RecordError(f"the record has no confusion matrix of step {step}", "run it again with --fresh")
    return fold_unseen(np.asarray(scored.confusion, dtype=np.int64), seen, unseen_under(labels))


def _iou(matrix: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """IoU of each label; NaN where no pixel is of it."""
    return iou_from_confusion(np.asarray(matrix), "skip")
