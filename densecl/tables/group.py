"""Which runs are one row of a table: those that differ by their seed alone, or by a setting that is averaged over."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densecl.records.keys import resolve
from densecl.records.record import UNHASHED, Record, flatten, identity

Unit = tuple[Any, ...]  # the seed, then a text for each setting that is averaged over


@dataclass(frozen=True)
class SetUp:
    """The runs of one row.

    Attributes:
        runs: one a unit, in order of units.
        units: what tells the runs apart.
        settings: what they have in common, under dotted keys.
        copies: further runs of the same units, which must not count twice.
    """

    runs: tuple[Record, ...]
    units: tuple[Unit, ...]
    settings: Mapping[str, Any]
    copies: tuple[Record, ...] = ()

    @property
    def everything(self) -> tuple[Record, ...]:
        """All runs, copies included."""
        return self.runs + self.copies


def set_ups(records: Sequence[Record], over: Sequence[str] = ()) -> list[SetUp]:
    """The rows of a benchmark's table, in the order in which they first appear. An unfinished run is a row alone.

    Args:
        records: of one benchmark.
        over: dotted keys of settings that may differ within a row.
    """
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        settings = json.dumps(identity(record, (*UNHASHED, *over)), sort_keys=True)
        alone = "" if record.status == "finished" else f"{record.seed} {record.hash}"
        found.setdefault((record.strategy, record.backbone, settings, alone), []).append(record)
    return [_set_up(members, over) for members in found.values()]


def averaged_keys(records: Sequence[Record], names: Sequence[str]) -> tuple[str, ...]:
    """The settings that `--over` names, one or several with commas between, under their full keys.

    Raises:
        SettingError: no run has such a setting, or several end alike.
    """
    known = {key for record in records for key in flatten(record.settings)} if names else set()
    single = [name.strip() for text in names for name in text.split(",") if name.strip()]
    return tuple(dict.fromkeys(resolve(name, known, "--over") for name in single))


def unit_of(record: Record, over: Sequence[str] = ()) -> Unit:
    """What tells a run from others of its row."""
    flat = flatten(record.settings)
    return (record.seed, *(json.dumps(flat.get(key), sort_keys=True) for key in over))


def _set_up(records: Sequence[Record], over: Sequence[str]) -> SetUp:
    """Of runs of the same unit, such as copied folders, the first with the most steps counts."""
    chosen: dict[Unit, Record] = {}
    for record in records:
        unit = unit_of(record, over)
        if unit not in chosen or len(record.steps) > len(chosen[unit].steps):
            chosen[unit] = record
    units = tuple(sorted(chosen))
    runs = tuple(chosen[unit] for unit in units)
    copies = tuple(record for record in records if not any(record is run for run in runs))
    return SetUp(runs, units, identity(runs[0], (*UNHASHED, *over)), copies)
