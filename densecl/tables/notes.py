"""Notes that tell the rows of a table apart: the settings whose values differ, with names as short as possible."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from densecl.records.layout import UPPER_BOUND
from densecl.settings.grammar import format_value
from densecl.tables.group import Configuration

# settings that are compared only among rows of the same strategy or backbone
OWNERS = {
    "strategy": "strategy",  # the file of a class, among rows that are called alike
    "strategy_values": "strategy",
    "plugins": "strategy",
    "backbone": "backbone",
    "backbone_values": "backbone",
}


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
