"""Groupings: which classes the columns of a table average. Each is a class in a file here and is found by its place.

The file's name is that of the grouping, with hyphens for underscores; the first line of its class's docstring stands
below the table.
"""

import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import ClassVar, NamedTuple

from densecl.errors import SettingError, UnknownNameError
from densecl.records.layout import Layout, ranges
from densecl.settings.grammar import Call, parse_one
from densecl.tables.columns import Column


class Means(NamedTuple):
    """Mean IoU of base and added classes after the last step, and of all classes seen so far after each step."""

    base: float | None
    added: float | None
    after_steps: Sequence[float | None]


class Grouping:
    """Mean IoU of the classes of step 0, of those of later steps, and of all."""

    name: str = ""
    background: ClassVar[tuple[str, ...]] = ("base", "all")  # the means in which background counts
    extra: ClassVar[str] = ""  # heading of a further column, which the report ranks by
    extra_over_steps: ClassVar[bool] = False  # it is a mean over the steps, so that `--per-step` shows it too

    def columns(self, layout: Layout) -> list[Column]:
        """The columns of class means; a grouping of one's own may have others, each with the labels it averages."""
        base = layout.with_background(layout.base, "base" in self.background) if layout.base else ()
        columns = [Column(ranges(base), "share", "higher", base, "base")] if base else []
        if layout.added:
            columns.append(Column(ranges(layout.added), "share", "higher", layout.added, "added"))
        return [*columns, Column("all", "share", "higher", self.everything(layout), "all")]

    def everything(self, layout: Layout) -> tuple[int, ...]:
        """The labels that count in the mean of all classes."""
        return layout.with_background(layout.classes, "all" in self.background)

    def extra_value(self, means: Means) -> float | None:
        """The value of the further column."""

    @property
    def summary(self) -> str:
        """The first line of the docstring, as it goes on after a colon."""
        line = (type(self).__doc__ or "").partition("\n")[0].rstrip(".")
        return line[:1].lower() + line[1:] if line.partition(" ")[0][1:].islower() else line


def names() -> list[str]:
    """The names of all groupings."""
    return [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]


def groupings() -> list[Grouping]:
    """All groupings in order of name, those with a further column last."""
    return sorted(map(grouping, names()), key=lambda each: (each.extra != "", each.name))


@cache
def grouping(name: str) -> Grouping:
    """The grouping of a name or of `file.py:Class(key=value)`; that file is imported, so a person must have typed it.

    Raises:
        UnknownNameError: there is none.
        SettingError: the class is no grouping.
    """
    if ":" in name:
        return _own_grouping(name)
    if name not in names():
        raise UnknownNameError("group", name, names())
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    result = next(c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__)()
    result.name = name
    return result


def _own_grouping(text: str) -> Grouping:
    from densecl.settings.arguments import resolve
    from densecl.settings.catalogue import load_class

    call = parse_one(text, "grouping")
    cls = load_class(call.name)
    if not issubclass(cls, Grouping):
        raise SettingError(f"'{call.name}' is no grouping", "derive it from densecl.tables.groupings.Grouping")
    result = cls()
    result.name = str(Call(cls.__name__, call.arguments))
    vars(result).update(resolve(cls, Grouping, dict(call.arguments), cls.__name__))
    return result
