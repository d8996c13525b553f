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
    return tuple(_entry(path) for path in sorted(_SETS.glob("[a-z]*.py")))


def names() -> list[str]:
    """Names of all packaged data sets."""
    return [entry.name for entry in entries()]


def canonical(name: str) -> str:
    """The name of a data set without settings, `voc` for `voc2012`; `file.py:Class` stays as it is.

    Raises:
        UnknownNameError: there is no such data set. SpecError: it is no name.
    """
    name = parse_one(name, "data set").name
    if name in names() or ":" in name:
        return name
    for entry in entries():
        if name in entry.aliases:
            return entry.name
    raise UnknownNameError("data set", name, names(), "or file.py:Class for one of your own")


def data_set(name: str, *, trusted: bool = True) -> "type[DenseDataset]":
    """The class of a data set.

    Args:
        name: one of `names()`, an alias, or `file.py:Class`, whose file is executed.
        trusted: False for a name that the user did not give: only packaged classes are imported then.

    Raises:
        UnknownNameError: no such data set. DataError: `file.py:Class` names another kind of class, or is not trusted.
        DenseCLError: the file does not import.
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


def locate(name: str, root: Path | None = None) -> Path:
    """The data set's own folder; see `data_set` and `DenseDataset.locate`, errors too."""
    return data_set(name).locate(root)


def open_dataset(name: str, split: str, root: Path | None = None, *, trusted: bool = True) -> "DenseDataset":
    """Open a split: `train`, `val`, `test` or, where the data set has it, `trainval`.

    Args:
        name: `shapes`, `cityscapes(cities=(ulm, jena))`, `mine.py:Mine(key=value)`.
        split: one of the data set's.
        root: a folder that the user named; default see `DenseDataset.locate`.
        trusted: see `data_set`.

    Raises:
        UnknownNameError: no such data set, split or setting. DataError: the data is missing or incomplete.
    """
    cls = data_set(name, trusted=trusted)
    return cls(cls.locate(root), split, **parse_one(name, "data set").arguments)


def _entry(path: Path) -> Entry:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["aliases"]
    ]
    aliases = ast.literal_eval(values[0]) if values else ()
    return Entry(path.stem, (ast.get_docstring(tree) or "").partition("\n")[0], aliases)
