"""Values of a record under dotted keys, as `--filter` and `--over` name them."""

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


def resolve(name: str, known: set[str], option: str) -> str:
    """The full key of a name: itself, or the only key that ends in it (`setting` is `stream.setting`).

    A setting goes before a key of the environment that ends alike. Messages name the `option`, such as `--filter`.
    """
    if name in known:
        return name
    matches = sorted(key for key in known if key.endswith(f".{name}"))
    preferred = [key for key in matches if not key.startswith(ENVIRONMENT)] or matches
    if len(preferred) == 1:
        return preferred[0]
    if matches:
        listed = f"{', '.join(matches[:-1])} or {matches[-1]}"
        raise SettingError(f"{option}: '{name}' could be {listed}", "write one of them")
    parts = [key.split(".") for key in known]
    endings = {".".join(words[start:]) for words in parts for start in range(len(words))}
    near = get_close_matches(name, sorted(endings), n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else "densecl inspect RUN lists the settings of a run"
    raise SettingError(f"{option}: no run has a key '{name}'", hint)
