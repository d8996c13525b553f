"""Whether runs of one row may be averaged: same settings do not yet mean same code, data and machine.

What can move the numbers as a setting can is refused; what moves their last digits, or nothing but the time, is told:

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
from densecl.tables.group import SetUp, set_ups, unit_of

TOLD = ("git", "python", "torch", "cuda", "gpu", "machine", "threads", "world", "earlier_worlds")
FEW = 3  # values that a footnote lists


class Trait(NamedTuple):
    """Something that a row's runs should share.

    Attributes:
        key: as `--filter` knows it.
        name: as a message says it.
        read: its value in a record; None where the record does not say.
        data: it follows from the settings that are averaged over, so that only runs that agree in those are compared.
        filtered: whether `--filter key=value` chooses by it.
    """

    key: str
    name: str
    read: Callable[[Record], Any]
    data: bool = False
    filtered: bool = True


def _environment(key: str) -> Callable[[Record], Any]:
    return lambda record: record.environment.get(key)


def _torch(record: Record) -> str | None:
    version = record.environment.get("torch")
    return None if version is None else ".".join(str(version).split("+")[0].split(".")[:2])


def _device(record: Record) -> str | None:
    device = record.settings.get("device")
    return None if device is None else str(device).split(":")[0]


def _apart(record: Record) -> int | None:
    """In how many processes BatchNorm had its own statistics."""
    world = record.environment.get("world")
    return 1 if world is not None and record.environment.get("bn_sync") else world


REFUSED = (
    Trait("densecl", "version of densecl", lambda record: record.densecl),
    Trait("environment.sources", "source of the method", _environment("sources"), filtered=False),
    Trait("environment.stream", "stream of images", _environment("stream"), data=True),
    Trait("environment.images", "number of images", _environment("images"), data=True, filtered=False),
    Trait("environment.torch", "version of torch", _torch, filtered=False),
    Trait("device", "kind of device", _device, filtered=False),
    Trait("environment.world", "number of processes with a BatchNorm of their own", _apart, filtered=False),
)


class Clash(NamedTuple):
    """Two runs of a row that differ by what can move the numbers."""

    what: str
    one: Record
    other: Record
    values: tuple[str, str]
    hint: str


def refuse(records: Sequence[Record], over: Sequence[str] = (), where: Callable[[Record], str] | None = None) -> None:
    """Stop before runs are averaged that should not be.

    Args:
        records: of any benchmarks.
        over: dotted keys of settings that may differ within a row.
        where: what a message calls a run; its folder's name by default.

    Raises:
        SettingError: naming two runs and what differs.
    """
    named = where or run_name
    for members in by_benchmark(records).values():
        for row in set_ups(members, over):
            for clash in clashes(row, over):
                runs = f"{clean(named(clash.one))} and {clean(named(clash.other))}"
                values = f"{clash.values[0]} there, {clash.values[1]} here"
                raise SettingError(f"{runs} are one row, but differ by {clash.what}: {values}", clash.hint)


def clashes(row: SetUp, over: Sequence[str] = ()) -> list[Clash]:
    """What keeps the runs of a row from being averaged: each trait that differs, with two runs that it differs in."""
    found: list[Clash] = []
    for trait in REFUSED:
        for runs in _comparable(row.everything, over if trait.data else ()):
            known = [(record, trait.read(record)) for record in runs]
            pair = _first_two([(record, value) for record, value in known if value is not None])
            if pair is not None:
                (one, ours), (other, theirs) = pair
                hint = _hint(trait.key if trait.filtered else "", theirs)
                found.append(Clash(trait.name, one, other, (_text(ours), _text(theirs)), hint))
    for unit in row.units:
        pair = _first_two([(record, record.hash) for record in row.everything if unit_of(record, over) == unit])
        if pair is not None:
            (one, ours), (other, theirs) = pair
            what = "the hash under one seed (images, weights or a source changed)"
            found.append(Clash(what, one, other, (ours, theirs), _hint("hash", theirs)))
    return found


def remarks(rows: Sequence[SetUp], names: Sequence[str], over: Sequence[str] = ()) -> list[str]:
    """What to know of the runs that were averaged.

    Args:
        rows: of one table.
        names: what the table calls them.
        over: dotted keys of settings that may differ within a row.
    """
    mixed: dict[str, list[str]] = {}
    for row, name in zip(rows, names, strict=True):
        for clash in clashes(row, over):
            mixed.setdefault(f"{clash.what} ({clash.values[0]}, {clash.values[1]})", []).append(name)
    texts = [
        f"mixed: {', '.join(dict.fromkeys(who))} averages runs that differ by {what}" for what, who in mixed.items()
    ]
    told = [text for key in TOLD if (text := _told(rows, key))]
    return [*texts, *([f"averaged runs differ by {', '.join(told)}"] if told else [])]


def run_name(record: Record) -> str:
    """A run as its folder is called: `voc15-5s/mib/bisenet/s0-0a1b2c3d`."""
    return f"{record.benchmark}/{record.strategy}/{record.backbone}/s{record.seed}-{record.hash}"


def _told(rows: Sequence[SetUp], key: str) -> str:
    """`gpu (A100, H100)` where the runs of some row differ by it."""
    values: list[Any] = []
    for row in rows:
        own = [record.environment.get(key) for record in row.runs]
        distinct = dict.fromkeys(_text(value) for value in own if value is not None)
        if len(distinct) > 1:
            values += distinct
    distinct = dict.fromkeys(values)
    if not distinct:
        return ""
    return f"{key} ({', '.join(distinct)})" if len(distinct) <= FEW else f"{key} ({len(distinct)} values)"


def _comparable(records: Sequence[Record], over: Sequence[str]) -> list[list[Record]]:
    """The runs in groups that agree in what is averaged over."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(unit_of(record, over)[1:], []).append(record)
    return list(groups.values())


def _first_two(known: Sequence[tuple[Record, Any]]) -> tuple[tuple[Record, Any], tuple[Record, Any]] | None:
    """The first run and the first that differs from it."""
    for record, value in known[1:]:
        if value != known[0][1]:
            return known[0], (record, value)
    return None


def _hint(key: str, value: Any) -> str:
    choose = f"choose with --filter {key}={_text(value)}" if key else "keep them in folders of their own"
    return f"{choose}, or average them all the same with --mix"


def _text(value: Any) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
