"""Settings laid over settings."""

import copy
from collections.abc import Mapping
from typing import Any

LENGTHS = ("epochs", "iterations")


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overlaid by `overlay`, nested; a length of training in the overlay replaces all lengths of the base.

    Otherwise `--set training.epochs=2` would do nothing on a benchmark whose recipe counts iterations.
    """
    result = copy.deepcopy(dict(base))
    training = overlay.get("training", {})
    later = training.get("later") if isinstance(training, Mapping) else None
    own = any(key in training for key in LENGTHS)
    if own or (isinstance(later, Mapping) and any(key in later for key in LENGTHS)):
        old = result.get("training", {})
        sections = [*([old] if own else []), old.get("later") if isinstance(old, dict) else None]
        for section in (section for section in sections if isinstance(section, dict)):
            for key in LENGTHS:
                section.pop(key, None)
    return _nested(result, overlay)


def _nested(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in overlay.items():
        old = result.get(key)
        result[key] = _nested(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return result
