"""`--filter`: the runs that a table shows, by conditions such as `setting=disjoint` or `training.lr<0.01`."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from densecl.errors import RecordError, SettingError
from densecl.records.keys import facts, resolve
from densecl.records.layout import clean, method_name
from densecl.records.record import Record, plain
from densecl.settings.grammar import format_value, parse_value

FORM = re.compile(r"\s*([\w.]+)\s*(!=|<=|>=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
ORDERED: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
MOST = 10  # values that a message lists


def chosen(records: Sequence[Record], conditions: Sequence[str]) -> list[Record]:
    """The records that meet all conditions. One without the key meets `!=` alone.

    `strategy` is met with or without arguments. Keys are those of `densecl.records.keys.facts`.

    Raises:
        SettingError, SpecError: another form, a key that no run has, or a value that is no literal.
        RecordError: nothing is left, naming the condition and the values that there are.
    """
    left = [(record, facts(record)) for record in records]
    known = {key for _, values in left for key in values}
    for text in conditions:
        key, is_met = _condition(text, known)
        before, left = left, [(record, values) for record, values in left if is_met(values)]
        if not left:
            texts = sorted({clean(format_value(values[key])) for _, values in before if key in values})
            more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
            there = f"{key} is {', '.join(texts[:MOST])}{more}" if texts else f"none of those that are left has {key}"
            raise RecordError(f"no run meets --filter '{clean(text)}'", there)
    return [record for record, _ in left]


def _condition(text: str, known: set[str]) -> tuple[str, Callable[[Mapping[str, Any]], bool]]:
    """The key of a condition, and the function that tries it on the facts of a record."""
    match = FORM.fullmatch(text)
    if match is None:
        raise SettingError(f"--filter '{clean(text)}' is no condition", "the form is key=value, with = != < > <= or >=")
    name, sign, literal = match.groups()
    key, wanted = resolve(name, known, "--filter"), parse_value(literal)
    if sign in ORDERED:
        if not _is_number(wanted):
            raise SettingError(f"--filter '{clean(text)}': {sign} compares numbers", f"write {name}=... or {name}!=...")
        return key, lambda values: _is_number(values.get(key)) and ORDERED[sign](values[key], wanted)

    def is_equal(values: Mapping[str, Any]) -> bool:
        value = values.get(key)
        if isinstance(value, str):  # `densecl=0.1` asks for text that looks like a number
            return value in (wanted, literal) or (key == "strategy" and method_name(value) == literal)
        if isinstance(value, bool) or isinstance(wanted, bool):  # True is not 1 here
            return value is wanted
        return key in values and value == plain(wanted)  # lists, as records have them

    return key, is_equal if sign in ("=", "==") else lambda values: not is_equal(values)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
