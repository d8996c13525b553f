"""Compare the protocol of a run with that of a published row: every difference in a few words."""

from collections.abc import Mapping
from typing import Any

from densecl.errors import SpecError
from densecl.records.layout import clean
from densecl.records.published import Reported, canonical
from densecl.records.record import Record, flatten, plain
from densecl.settings.grammar import Call, format_value, parse_one
from densecl.tables.groupings import grouping

# the settings of a paper that does not mention them
USUAL: Mapping[str, Any] = {
    "training.batchnorm": "train",
    "training.class_weights": 0.0,
    "training.warmup": 0,
    "training.loss_stride": 1,
}
# what was done before a setting had this name, by records that lack it
BEFORE: Mapping[str, Any] = {
    "evaluation.images": "all",  # of the test stream, whether they show a class that is learnt or not
    "training.drop_last": False,  # the last batch of an epoch, if it is smaller
    "training.loss_stride": 1,  # one in how many pixels, in each direction, the loss looks at
    "training.mean_over": "labelled",  # the pixels that the cross-entropy is averaged over
}
LENGTHS = ("training.epochs", "training.iterations", "training.later.epochs", "training.later.iterations")


def mismatches(record: Record, reported: Reported, group: str | None = None) -> list[str]:
    """The differences that keep the two from being compared; empty when all that is known agrees.

    A thing that the source does not state is a mismatch too: it cannot be said to agree. Without a `group` our table
    shows several groupings, so that any stated one will do.
    """
    ours, theirs = flatten(record.settings), flatten(reported.settings)
    faults = _data(record, reported, ours)
    if (
        record.tasks
    ):  # no source of a sequence says all of its training: what it leaves out is told, not held against it
        prefix = "training.later." if (reported.task or 1) > 1 else "training."
        faults += _backbone(record, reported, ours)
        faults += _lengths_differ(_length(ours, prefix, (reported.task or 1) - 2), _length(theirs, "training."))
    else:
        order = ours.get("stream.order")
        if isinstance(order, list) and order != sorted(order):
            faults.append("another class order")
        faults += _stated("setting", ours.get("stream.setting"), reported.setting)
        faults += _stated("label preset", ours.get("stream.labels"), reported.labels)
        faults += _grouping(reported.grouping, group)
        faults += _backbone(record, reported, ours)
        if not reported.states_training:
            faults.append("training recipe not stated")
        faults += _lengths_differ(_length(ours, "training."), _length(theirs, "training."))
        faults += _lengths_differ(_length(ours, "training.later."), _length(theirs, "training.later."), " after step 0")
    usual = {} if record.tasks else USUAL
    expected = {**usual, **{f"strategy_values.{key}": value for key, value in reported.strategy.items()}, **theirs}
    for key, wanted in expected.items():
        value = ours.get(key, BEFORE.get(key) if record.foreign is None else {**usual, **BEFORE}.get(key))
        if key == "training.later.lr" and value is None:  # then it is the first learning rate
            value = ours.get("training.lr")
        if key not in LENGTHS and plain(value) != plain(wanted):
            name = key.removeprefix("training.").removeprefix("strategy_values.")
            own = "not declared" if value is None and record.foreign is not None else format_value(value)
            faults.append(f"{name} {own} (there {format_value(wanted)})")
    if reported.variant:
        faults.append(f"there {reported.variant}")
    return [clean(fault) for fault in faults]


def _stated(name: str, ours: object, theirs: object) -> list[str]:
    if theirs is None:
        return [f"{name} not stated"]
    return [] if ours == theirs else [f"{name} {ours} (there {theirs})"]


def _data(record: Record, reported: Reported, ours: Mapping[str, Any]) -> list[str]:
    family, theirs = canonical(record.benchmark)[0], canonical(reported.benchmark)[0]
    if family != theirs:
        return [f"data {family} (there {theirs})"]
    faults = ["scored on held-out training images"] if ours.get("data.validation") else []
    images = record.environment.get("images")
    if reported.images is None:
        return faults
    if not isinstance(images, dict):
        return [*faults, "number of images not recorded"]
    for part, wanted in (("train", reported.images.train), ("test", reported.images.test)):
        if images.get(part) != wanted:
            faults.append(f"{images.get(part)} {part} images (there {wanted})")
    return faults


def _grouping(theirs: str | None, ours: str | None) -> list[str]:
    if theirs is None:
        return ["grouping not stated"]
    if ours is None or grouping(ours).background == grouping(theirs).background:
        return []
    return [f"grouping {grouping(ours).name} (there {theirs})"]


def _backbone(record: Record, reported: Reported, ours: Mapping[str, Any]) -> list[str]:
    if reported.backbone is None:
        return ["backbone not stated"]
    try:
        theirs = parse_one(reported.backbone, "backbone")
    except SpecError:
        theirs = Call(reported.backbone)
    mine = {key: ours.get(f"backbone_values.{key}") for key in theirs.arguments}
    faults = []
    if (record.backbone, plain(mine)) != (theirs.name, plain(dict(theirs.arguments))):
        encoder = ours.get("backbone_values.encoder")
        shown = mine if record.backbone == theirs.name else {"encoder": encoder} if encoder else {}
        faults.append(f"backbone {Call(record.backbone, shown)} (there {theirs})")
    if record.foreign is not None and "backbone_values.weights" not in ours:
        return [*faults, *(["pretrained weights not declared"] if reported.pretrained is not None else [])]
    pretrained = ours.get("backbone_values.weights") not in (None, "none")
    if reported.pretrained is not None and reported.pretrained != pretrained:
        faults.append("pretrained weights" if pretrained else "no pretrained weights")
    return faults


def _lengths_differ(ours: str | None, theirs: str | None, when: str = "") -> list[str]:
    return [] if theirs in (None, ours) else [f"{ours or 'length not declared'}{when} (there {theirs})"]


def _length(settings: Mapping[str, Any], prefix: str, place: int = -1) -> str | None:
    """`30 epochs`; later steps are as long as the first unless something is said of them, of all or at a `place`."""
    for where in dict.fromkeys((prefix, "training.")):
        for key in ("iterations", "epochs"):
            value = settings.get(f"{where}{key}")
            if isinstance(value, list) and place >= 0:
                value = value[min(place, len(value) - 1)]
            if value is not None:
                return f"{value} {key}"
    return None
