"""Rows of a table: runs of one configuration, and the notes that tell rows apart."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densecl.records.layout import UPPER_BOUND
from densecl.records.record import UNHASHED, Record, flatten, identity, resolve
from densecl.settings.grammar import format_value

Unit = tuple[Any, ...]  # the seed, then a text for each setting that is averaged over
# settings that are compared only among rows of the same strategy or backbone
OWNERS = {
    "strategy": "strategy",  # the file of a class, among rows that are called alike
    "strategy_values": "strategy",
    "plugins": "strategy",
    "backbone": "backbone",
    "backbone_values": "backbone",
}


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
    """Rows of a benchmark's table in order of appearance; settings `over` may differ. An unfinished run has its own.

    Foreign predictions have rows of their own, one for each declaration.
    """
    rows: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        settings = json.dumps(identity(record, (*UNHASHED, *over)), sort_keys=True)
        alone = "" if record.status == "finished" else f"{record.seed} {record.hash}"
        foreign = "" if record.foreign is None else record.foreign.declared.model_dump_json()
        rows.setdefault((record.strategy, record.backbone, settings, foreign, alone), []).append(record)
    return [_configuration(members, over) for members in rows.values()]


def averaged_keys(records: Sequence[Record], names: Sequence[str]) -> tuple[str, ...]:
    """The full keys of the settings that `--over` names, one or several with commas between."""
    known = {key for record in records for key in flatten(record.settings)} if names else set()
    single = [name.strip() for text in names for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(resolve(name, known, "--over") for name in single))


def unit_of(record: Record, over: Sequence[str] = ()) -> Unit:
    """The seed and the averaged settings of a run: what tells it from others of its row."""
    settings = flatten(record.settings) if over else {}
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


def notes(rows: Sequence[Configuration]) -> list[str]:
    """A note for each row, such as `batchnorm=frozen`; empty for a row with the settings that most rows have."""
    noted: list[list[str]] = [[] for _ in rows]
    for key in sorted({key for row in rows for key in row.settings if key != "benchmark"}):
        owner = OWNERS.get(key.split(".")[0])
        comparable: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            comparable.setdefault(getattr(row, owner) if owner else "", []).append(index)
        for indices in comparable.values():
            for position in _deviating([rows[index].settings for index in indices], key):
                index = indices[position]
                if rows[index].strategy != UPPER_BOUND or not key.startswith("training.later."):  # it has no later step
                    noted[index].append(key)
    names = _short_names({key for keys in noted for key in keys})
    return [
        ", ".join(f"{names[key]}={format_value(row.settings[key])}" for key in keys)
        for row, keys in zip(rows, noted, strict=True)
    ]


def _deviating(settings: Sequence[Mapping[str, Any]], key: str) -> list[int]:
    """Rows whose value of `key` is not the one that most rows have; all of them where no value leads."""
    values = [json.dumps(row[key], sort_keys=True, default=str) if key in row else None for row in settings]
    counts = Counter(values).most_common(2)
    if len(counts) < 2:
        return []
    usual = counts[0][0] if counts[0][1] > counts[1][1] else object()
    return [index for index, value in enumerate(values) if value is not None and value != usual]


def _short_names(keys: set[str]) -> dict[str, str]:
    """Each key's shortest ending that no other key shares: `training.batchnorm` is `batchnorm`."""
    names = {}
    for key in keys:
        parts = key.split(".")
        endings = (".".join(parts[-length:]) for length in range(1, len(parts)))
        names[key] = next((e for e in endings if not any(k != key and f".{k}".endswith(f".{e}") for k in keys)), key)
    return names
