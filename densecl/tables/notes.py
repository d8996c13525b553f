"""What tells the rows of a table apart: the settings whose values differ, written as short as they stay unambiguous."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from densecl.settings.grammar import format_value

NAMED = ("benchmark",)  # has a title of its own
OWN = {
    "strategy": "strategy",  # where a file lies, among rows that are called alike
    "strategy_values": "strategy",
    "plugins": "strategy",
    "backbone": "backbone",
    "backbone_values": "backbone",
}


class Setup(NamedTuple):
    """A row as far as its note is concerned; `settings` under dotted keys."""

    strategy: str
    backbone: str
    settings: Mapping[str, Any]


def notes(setups: Sequence[Setup]) -> list[str]:
    """One note a row, such as `batchnorm=frozen`; empty for a row that is set up as most are.

    Hyper-parameters of a strategy are compared only among rows of that strategy, those of a backbone likewise.
    """
    chosen: list[list[str]] = [[] for _ in setups]
    for key in sorted({key for setup in setups for key in setup.settings if key not in NAMED}):
        owner = OWN.get(key.split(".")[0])
        for group in _groups(setups, owner):
            for index in _deviating([setups[index].settings for index in group], key):
                if not _is_idle(setups[group[index]], key):
                    chosen[group[index]].append(key)
    names = _short_names({key for keys in chosen for key in keys})
    return [
        ", ".join(f"{names[key]}={_text(setup.settings[key])}" for key in keys)
        for setup, keys in zip(setups, chosen, strict=True)
    ]


def _is_idle(setup: Setup, key: str) -> bool:
    """Whether a setting has no effect on a row: joint training has no later step."""
    return setup.strategy == "joint" and key.startswith("training.later.")


def _groups(setups: Sequence[Setup], owner: str | None) -> list[list[int]]:
    """Indices of the rows that are compared with each other."""
    groups: dict[str, list[int]] = {}
    for index, setup in enumerate(setups):
        groups.setdefault(getattr(setup, owner) if owner else "", []).append(index)
    return list(groups.values())


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


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = tuple(value)
    return format_value(value) if isinstance(value, str | bool | int | float | tuple) or value is None else str(value)
