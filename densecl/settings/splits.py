"""Splits by their name, `15-5s`, and by groups of class names."""

import re
from collections.abc import Mapping, Sequence

from densecl.errors import SettingError, UnknownNameError

SPLIT = re.compile(r"\d+-\d+(s|(-\d+)*)$")
FORMS = (
    "write A-B (A classes, then B at a time), A-Bs (A, then B more, one at a time) or A-B-C (A, then B, then C, and so "
    "on)"
)


def grouped(groups: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """The split and the class order of groups of class names, one a step: `("2-1", (3, 1, 2))`.

    SettingError for an empty group, a class in two groups or in none, and a single group; UnknownNameError for a class
    that the data set does not have.
    """
    owner: dict[str, str] = {}
    for group, names in groups.items():
        if not names:
            raise SettingError(
                f"the group '{group}' of stream.groups is empty", "name one class or more, or leave it out"
            )
        for name in names:
            if name not in class_names:
                raise UnknownNameError(f"class in stream.groups.{group}", name, class_names)
            if name in owner:
                places = (
                    f"twice in the group '{group}'" if owner[name] == group else f"in '{owner[name]}' and '{group}'"
                )
                raise SettingError(f"stream.groups: the class '{name}' is {places}", "a class arrives once")
            owner[name] = group
    if missing := [name for name in class_names if name not in owner]:
        advice = "put each class into one; pixels of a class that shall not be learnt are void by `ignore` of [data]"
        raise SettingError(f"stream.groups: no group has {', '.join(missing[:5])}", advice)
    if len(groups) < 2:
        raise SettingError("stream.groups has one group", "a stream has two steps or more; see the strategy `joint`")
    split = "-".join(str(len(names)) for names in groups.values())
    return split, tuple(class_names.index(name) + 1 for name in owner)
