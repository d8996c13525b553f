"""What a record can be asked for by name: its settings, where it ran, and what it is called."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from densecl.errors import SettingError
from densecl.records.record import Record, flatten

OWN = ("benchmark", "strategy", "backbone", "seed", "status", "hash", "densecl", "resumable", "oracle")
ENVIRONMENT = "environment."


def facts(record: Record) -> dict[str, Any]:
    """Values under dotted keys: settings (`training.lr`), `environment.torch`, and the names in `OWN`."""
    own = {key: getattr(record, key) for key in OWN}
    return flatten(record.settings) | flatten(record.environment, ENVIRONMENT) | own


def known_keys(records: Iterable[Record]) -> set[str]:
    """Every key that any of `records` has."""
    return {key for record in records for key in facts(record)}


def resolve(name: str, known: set[str], option: str) -> str:
    """The key that `name` means: itself, or the only one that ends in it (`setting` is `stream.setting`).

    A setting goes before a key of the environment that ends alike.

    Args:
        name: as the user wrote it.
        known: full keys.
        option: `--filter`, for messages.

    Raises:
        SettingError: no such key, naming the nearest; or several, naming them.
    """
    if name in known:
        return name
    found = sorted(key for key in known if key.endswith(f".{name}"))
    settings = [key for key in found if not key.startswith(ENVIRONMENT)]
    if len(settings or found) == 1:
        return (settings or found)[0]
    if found:
        raise SettingError(f"{option}: '{name}' could be {_listed(found)}", "write one of them")
    near = _nearest(name, known)
    hint = f"did you mean '{near}'?" if near else "densecl inspect RUN lists the settings of a run"
    raise SettingError(f"{option}: no run has a key '{name}'", hint)


def _nearest(name: str, known: set[str]) -> str:
    """A key, or the end of one, that looks like `name`."""
    endings = {key[start:] for key in known for start in _starts(key)}
    return next(iter(get_close_matches(name, sorted(endings), n=1, cutoff=0.6)), "")


def _starts(key: str) -> list[int]:
    return [0, *(index + 1 for index, character in enumerate(key) if character == ".")]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
