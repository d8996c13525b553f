"""Data sets by name. Importing this package reads nothing and imports neither NumPy nor torch.

A data set is one class in one file of `densecl/data/sets/`, found by the file's name, or a class of the user's, named
`file.py:Class(key=value)`.
"""

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from densecl.errors import DataError, UnknownNameError
from densecl.settings.grammar import parse_one

if TYPE_CHECKING:
    from densecl.data.dataset import DenseDataset

_SETS = Path(__file__).parent / "sets"


class Entry(NamedTuple):
    """A data set as its file says, read without importing it."""

    name: str
    summary: str  # first line of the file
    aliases: tuple[str, ...]


@cache
def entries() -> tuple[Entry, ...]:
    """All packaged data sets, by name."""
    found = []
    for path in sorted(_SETS.glob("[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        aliases = [node.value for node in assigned if ast.unparse(node.targets[0]) == "aliases"]
        summary = (ast.get_docstring(tree) or "").partition("\n")[0]
        found.append(Entry(path.stem, summary, ast.literal_eval(aliases[0]) if aliases else ()))
    return tuple(found)


def names() -> list[str]:
    """Names of all packaged data sets."""
    return [entry.name for entry in entries()]


def canonical(name: str) -> str:
    """The name of a data set without settings, `voc` for `voc2012`; `file.py:Class` stays as it is."""
    name = parse_one(name, "data set").name
    if name in names() or ":" in name:
        return name
    for entry in entries():
        if name in entry.aliases:
            return entry.name
    raise UnknownNameError("data set", name, names(), "or file.py:Class for one of your own")


def data_set(name: str, *, trusted: bool = True) -> "type[DenseDataset]":
    """The class of a data set: one of `names()`, an alias, or `file.py:Class`, whose file is executed.

    `trusted` is False for a name that the user did not give: only packaged classes are imported then. DataError if
    `file.py:Class` names another kind of class, or is not trusted; DenseCLError if the file does not import.
    """
    from densecl.data.dataset import DenseDataset
    from densecl.settings.catalogue import load_class

    name = canonical(name)
    if ":" not in name:
        module = importlib.import_module(f"densecl.data.sets.{name}")
        classes = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
        return next(cls for cls in classes if isinstance(cls, type) and issubclass(cls, DenseDataset))
    if not trusted:
        raise DataError(
            f"the data set '{name}' was not named by you, so its code is not executed",
            "only data sets of densecl are opened by the name in a result",
        )
    cls = load_class(name)
    if not issubclass(cls, DenseDataset):
        raise DataError(f"'{name}' is no data set", "subclass densecl.data.dataset.DenseDataset")
    return cls


def check_settings(name: str) -> None:
    """Refuse settings that a packaged data set does not take; errors as `open_dataset`, but nothing is opened."""
    call = parse_one(name, "data set")
    if call.arguments and ":" not in call.name:
        cls = data_set(call.name)
        cls.__new__(cls).configure(call.arguments)


def open_dataset(name: str, split: str, root: Path | None = None, *, trusted: bool = True) -> "DenseDataset":
    """Open a split: `train`, `val`, `test` or, where the data set has it, `trainval`.

    `name` is such as `shapes`, `cityscapes(cities=(ulm, jena))`, `mine.py:Mine(key=value)`; for `root` see
    `DenseDataset.locate`, for `trusted` `data_set`. UnknownNameError for another data set, split or setting; DataError
    if the data is missing or incomplete.
    """
    cls = data_set(name, trusted=trusted)
    return cls(cls.locate(root), split, **parse_one(name, "data set").arguments)
