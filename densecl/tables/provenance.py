"""Check that the runs of a row may be averaged: equal settings do not yet mean equal code, data and machine.

A difference that can move the numbers as a setting can is refused; one that moves their last digits, or nothing but the
time, is told in a footnote:

| refused | told |
|---|---|
| version of densecl, source of a method of one's own | git commit |
| the stream's images and label tables; hashes that differ under one seed | |
| torch 2.6 with 2.7 | torch 2.6.0 with 2.6.1, Python |
| cpu with cuda | models of GPU, CUDA, machine, threads |
| BatchNorm of each process alone, in different numbers of processes | number of processes with synchronised BatchNorm |

Values that a record does not have are not compared.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from densecl.errors import SettingError
from densecl.records.layout import by_benchmark, clean
from densecl.records.record import Record
from densecl.tables.group import Configuration, configurations, unit_of

TOLD = ("git", "python", "torch", "cuda", "gpu", "machine", "threads", "world", "earlier_worlds")
FEW = 3  # values that a footnote lists


class Trait(NamedTuple):
    """A property that the runs of a row should share."""

    key: str  # by which `--filter key=value` chooses, if it does
    name: str
    read: Callable[[Record], Any]  # its value; None where the record does not say
    data: bool = False  # it follows from the settings that are averaged over: compare only runs that agree in those


def _torch(record: Record) -> str | None:
    version = record.environment.get("torch")
    return None if version is None else ".".join(str(version).split("+")[0].split(".")[:2])


def _device(record: Record) -> str | None:
    device = record.settings.get("device")
    return None if device is None else str(device).split(":")[0]


def _separate_statistics(record: Record) -> int | None:
    """The number of processes whose BatchNorm has statistics of its own."""
    world = record.environment.get("world")
    return 1 if world is not None and record.environment.get("bn_sync") else world


REFUSED = (
    Trait("densecl", "version of densecl", lambda record: record.densecl),
    Trait("", "source of the method", lambda record: record.environment.get("sources")),
    Trait("environment.stream", "stream of images", lambda record: record.environment.get("stream"), data=True),
    Trait("", "number of images", lambda record: record.environment.get("images"), data=True),
    Trait("", "version of torch", _torch),
    Trait("", "kind of device", _device),
    Trait("", "number of processes with a BatchNorm of their own", _separate_statistics),
)
HASH = Trait("hash", "the hash under one seed (images, weights or a source changed)", lambda record: record.hash)


class Clash(NamedTuple):
    """Two runs of a row with different values of a trait."""

    trait: Trait
    first: Record
    other: Record
    values: tuple[str, str]


def refuse(records: Sequence[Record], where: Callable[[Record], str], over: Sequence[str] = ()) -> None:
    """Stop before runs are averaged that should not be; `where` gives the name of a run's folder for the message."""
    for members in by_benchmark(records).values():
        for row in configurations(members, over):
            for trait, first, other, (theirs, ours) in clashes(row, over):
                choice = (
                    f"choose with --filter {trait.key}={ours}" if trait.key else "keep them in folders of their own"
                )
                raise SettingError(
                    f"{clean(where(first))} and {clean(where(other))} are one row, but differ by {trait.name}: "
                    f"{theirs} there, {ours} here",
                    f"{choice}, or average them all the same with --mix",
                )


def clashes(row: Configuration, over: Sequence[str] = ()) -> list[Clash]:
    """The refused differences within a row: for each trait the first run and the first that differs from it."""
    result: list[Clash] = []
    for trait in (*REFUSED, HASH):
        first: dict[Any, tuple[Record, Any]] = {}  # of each group of runs that should share the trait
        clashing: set[Any] = set()
        for record in row.runs + row.copies:
            value, unit = trait.read(record), unit_of(record, over)
            group = unit if trait is HASH else unit[1:] if trait.data else ()
            if value is None or group in clashing:
                continue
            other, theirs = first.setdefault(group, (record, value))
            if theirs != value:
                clashing.add(group)
                result.append(Clash(trait, other, record, (_text(theirs), _text(value))))
    return result


def remarks(rows: Sequence[Configuration], names: Sequence[str], over: Sequence[str] = ()) -> list[str]:
    """Footnotes about differences between the averaged runs of a table; `names` are those of its rows."""
    mixed: dict[str, dict[str, None]] = {}
    for row, name in zip(rows, names, strict=True):
        for clash in clashes(row, over):
            mixed.setdefault(f"{clash.trait.name} ({', '.join(clash.values)})", {})[name] = None
    texts = [f"mixed: {', '.join(who)} averages runs that differ by {what}" for what, who in mixed.items()]
    told = [text for key in TOLD if (text := _told(rows, key))]
    return [*texts, *([f"averaged runs differ by {', '.join(told)}"] if told else [])]


def _told(rows: Sequence[Configuration], key: str) -> str:
    """`gpu (A100, H100)` where the runs of some row differ by it."""
    values: dict[str, None] = {}
    for row in rows:
        own = [record.environment.get(key) for record in row.runs]
        distinct = dict.fromkeys(_text(value) for value in own if value is not None)
        if len(distinct) > 1:
            values |= distinct
    if not values:
        return ""
    return f"{key} ({', '.join(values)})" if len(values) <= FEW else f"{key} ({len(values)} values)"


def _text(value: Any) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
