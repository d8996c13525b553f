"""Rows of a table: runs of one configuration, which differ by their seed or a setting that is averaged over."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densecl.records.keys import resolve
from densecl.records.record import UNHASHED, Record, flatten, identity

Unit = tuple[Any, ...]  # the seed, then a text for each setting that is averaged over


@dataclass(frozen=True)
class Configuration:
    """The runs of one row."""

    strategy: str
    backbone: str
    settings: Mapping[str, Any]  # that the runs have in common, under dotted keys
    runs: tuple[Record, ...] = ()  # one for each unit, in order
    units: tuple[Unit, ...] = ()
    copies: tuple[Record, ...] = ()  # further runs of the same units, which must not count twice


def configurations(records: Sequence[Record], over: Sequence[str] = ()) -> list[Configuration]:
    """Rows of a benchmark's table in order of appearance; settings `over` may differ. An unfinished run has its own."""
    rows: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        settings = json.dumps(identity(record, (*UNHASHED, *over)), sort_keys=True)
        alone = "" if record.status == "finished" else f"{record.seed} {record.hash}"
        rows.setdefault((record.strategy, record.backbone, settings, alone), []).append(record)
    return [_configuration(members, over) for members in rows.values()]


def averaged_keys(records: Sequence[Record], names: Sequence[str]) -> tuple[str, ...]:
    """The full keys of the settings that `--over` names, one or several with commas between."""
    known = {key for record in records for key in flatten(record.settings)} if names else set()
    single = [name.strip() for text in names for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(resolve(name, known, "--over") for name in single))


def unit_of(record: Record, over: Sequence[str] = ()) -> Unit:
    """The seed and the averaged settings of a run: what tells it from others of its row."""
    settings = flatten(record.settings)
    return (record.seed, *(json.dumps(settings.get(key), sort_keys=True) for key in over))


def _configuration(records: Sequence[Record], over: Sequence[str]) -> Configuration:
    """Choose a run for each unit: of several, such as copied folders, the first with the most steps counts."""
    runs: dict[Unit, Record] = {}
    for record in records:
        unit = unit_of(record, over)
        if unit not in runs or len(record.steps) > len(runs[unit].steps):
            runs[unit] = record
    units = tuple(sorted(runs))
    first = runs[units[0]]
    return Configuration(
        first.strategy,
        first.backbone,
        identity(first, (*UNHASHED, *over)),
        runs=tuple(runs[unit] for unit in units),
        units=units,
        copies=tuple(record for record in records if not any(record is run for run in runs.values())),
    )
