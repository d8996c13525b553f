"""`--filter`: the runs that a table shows, by conditions such as `setting=disjoint` or `training.lr<0.01`."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from densecl.errors import RecordError, SettingError
from densecl.records.keys import facts, known_keys, resolve
from densecl.records.layout import clean, method_name
from densecl.records.record import Record, plain
from densecl.settings.grammar import Value, format_value, parse_value

FORM = re.compile(r"\s*([\w.]+)\s*(!=|<=|>=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
ORDERED: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
MOST = 10  # values that a message lists


class Condition(NamedTuple):
    """`key operator value`, and the value as it was written: `densecl=0.1` asks for text that looks like a number."""

    key: str
    operator: str
    value: Value
    text: str


def parse_condition(text: str, known: set[str]) -> Condition:
    """A condition on one of the `known` keys.

    Raises:
        SettingError, SpecError: another form, a key that no run has, or a value that is no literal.
    """
    match = FORM.fullmatch(text)
    if match is None:
        raise SettingError(f"--filter '{clean(text)}' is no condition", "the form is key=value, with = != < > <= or >=")
    name, sign, literal = match.groups()
    key, value = resolve(name, known, "--filter"), parse_value(literal)
    if sign in ORDERED and not _is_number(value):
        raise SettingError(f"--filter '{clean(text)}': {sign} compares numbers", f"write {name}=... or {name}!=...")
    return Condition(key, sign.replace("==", "="), value, literal)


def chosen(records: Sequence[Record], conditions: Sequence[str]) -> list[Record]:
    """The records that meet all conditions. One without the key meets `!=` alone.

    `strategy` is met with or without arguments. Keys are those of `densecl.records.keys.facts`.

    Raises:
        SettingError, SpecError: as `parse_condition`.
        RecordError: nothing is left, naming the condition and the values that there are.
    """
    known = known_keys(records)
    left = list(records)
    for text in conditions:
        condition = parse_condition(text, known)
        before, left = left, [record for record in left if meets(record, condition)]
        if not left:
            raise RecordError(f"no run meets --filter '{clean(text)}'", _existing_values(before, condition.key))
    return left


def meets(record: Record, condition: Condition) -> bool:
    """True if the record's value compares to the condition's as it says."""
    values = facts(record)
    value = values.get(condition.key)
    if condition.operator in ORDERED:
        assert isinstance(condition.value, int | float)
        return _is_number(value) and ORDERED[condition.operator](value, condition.value)
    equal = condition.key in values and _equal(value, condition)
    if condition.key == "strategy":
        equal = equal or method_name(record.strategy) == condition.text
    return equal == (condition.operator == "=")


def _equal(value: Any, condition: Condition) -> bool:
    if isinstance(value, str):
        return value in (condition.value, condition.text)
    if isinstance(value, bool) or isinstance(condition.value, bool):  # True is not 1 here
        return value is condition.value
    return value == plain(condition.value)  # lists, as records have them


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _existing_values(records: Sequence[Record], key: str) -> str:
    values = [facts(record)[key] for record in records if key in facts(record)]
    texts = sorted({clean(format_value(value)) for value in values})
    more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return f"{key} is {', '.join(texts[:MOST])}{more}" if texts else f"none of those that are left has {key}"
