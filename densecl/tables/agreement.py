"""Whether a run and a published row followed one protocol: every difference in a few words."""

from collections.abc import Mapping
from typing import Any

from densecl.errors import SpecError
from densecl.metrics.grouping import GROUPINGS
from densecl.records.layout import clean
from densecl.records.published import Reported, canonical
from densecl.records.record import Record, flatten
from densecl.settings.grammar import Call, format_value, parse_one

# what a paper that says nothing of it did
USUAL: Mapping[str, Any] = {
    "training.batchnorm": "train",
    "training.class_weights": 0.0,
    "training.warmup": 0,
}
LENGTHS = ("training.epochs", "training.iterations", "training.later.epochs", "training.later.iterations")


def mismatches(record: Record, reported: Reported, group: str | None = None) -> list[str]:
    """What keeps the two from being compared; empty when all that is known agrees.

    A thing that the source does not state is a mismatch too: it cannot be said to agree.

    Args:
        record: our run.
        reported: a row about the same method.
        group: the grouping of our table; None shows several, so that any stated one will do.
    """
    ours = flatten(record.settings)
    theirs = flatten(reported.settings)
    faults = [*_data(record, reported, ours), *_stream(reported, ours)]
    if reported.grouping is None:
        faults.append("grouping not stated")
    elif group is not None and GROUPINGS[group][:2] != GROUPINGS[reported.grouping][:2]:
        faults.append(f"grouping {group} (there {reported.grouping})")
    faults += _backbone(record, reported)
    if any(key.startswith("training.") for key in theirs):
        faults += _length(ours, theirs)
    else:
        faults.append("training recipe not stated")
    expected = {**USUAL, **{f"strategy_values.{key}": value for key, value in reported.strategy.items()}, **theirs}
    for key, value in expected.items():
        if key not in LENGTHS and _plain(_effective(ours, key)) != _plain(value):
            name = key.removeprefix("training.").removeprefix("strategy_values.")
            faults.append(f"{name} {_text(_effective(ours, key))} (there {_text(value)})")
    if reported.variant:
        faults.append(f"there {reported.variant}")
    return [clean(fault) for fault in faults]


def _data(record: Record, reported: Reported, ours: Mapping[str, Any]) -> list[str]:
    family, theirs = canonical(record.benchmark)[0], canonical(reported.benchmark)[0]
    if family != theirs:
        return [f"data {family} (there {theirs})"]
    faults = []
    if ours.get("data.validation"):
        faults.append("scored on held-out training images")
    if reported.images is not None:
        images = record.environment.get("images")
        if not isinstance(images, dict):
            return [*faults, "number of images not recorded"]
        for part in ("train", "test"):
            wanted = getattr(reported.images, part)
            if images.get(part) != wanted:
                faults.append(f"{images.get(part)} {part} images (there {wanted})")
    return faults


def _stream(reported: Reported, ours: Mapping[str, Any]) -> list[str]:
    faults = []
    order = ours.get("stream.order")
    if isinstance(order, list) and order != sorted(order):
        faults.append("another class order")
    for key, name in (("setting", "setting"), ("labels", "label preset")):
        theirs, mine = getattr(reported, key), ours.get(f"stream.{key}")
        if theirs is None:
            faults.append(f"{name} not stated")
        elif mine != theirs:
            faults.append(f"{name} {mine} (there {theirs})")
    return faults


def _backbone(record: Record, reported: Reported) -> list[str]:
    if reported.backbone is None:
        return ["backbone not stated"]
    values = record.settings.get("backbone_values", {})
    try:
        theirs = parse_one(reported.backbone, "backbone")
    except SpecError:
        theirs = Call(reported.backbone)
    mine = {key: values.get(key) for key in theirs.arguments}
    faults = []
    if record.backbone != theirs.name or any(_plain(mine[key]) != _plain(v) for key, v in theirs.arguments.items()):
        encoder = values.get("encoder")
        shown = mine if record.backbone == theirs.name else {"encoder": encoder} if encoder else {}
        faults.append(f"backbone {Call(record.backbone, shown)} (there {theirs})")
    if reported.pretrained and values.get("weights") in (None, "none"):
        faults.append("no pretrained weights")
    if reported.pretrained is False and values.get("weights") not in (None, "none"):
        faults.append("pretrained weights")
    return faults


def _length(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    faults = []
    for prefix, name in (("training.", ""), ("training.later.", " after step 0")):
        mine, wanted = _steps_of(ours, prefix), _steps_of(theirs, prefix)
        if mine != wanted and wanted is not None:
            faults.append(f"{mine}{name} (there {wanted})")
    return faults


def _steps_of(settings: Mapping[str, Any], prefix: str) -> str | None:
    """The length of a step in words; later steps are as long as the first unless something is said of them."""
    for where in dict.fromkeys((prefix, "training.")):
        for key in ("iterations", "epochs"):
            value = settings.get(f"{where}{key}")
            if value is not None:
                return f"{value} {key}"
    return None


def _effective(settings: Mapping[str, Any], key: str) -> Any:
    """A setting; a later learning rate that is not given is the first one."""
    if key == "training.later.lr" and settings.get(key) is None:
        return settings.get("training.lr")
    return settings.get(key)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = tuple(value)
    return format_value(value) if isinstance(value, str | bool | int | float | tuple) or value is None else str(value)
