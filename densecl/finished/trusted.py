"""Open a run folder safely: a class that its record names is imported only if the user names it again."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densecl.errors import RecordError, SettingError
from densecl.settings.catalogue import load_class, source_hash
from densecl.settings.grammar import parse

if TYPE_CHECKING:
    from densecl.records.record import Record

CODE = re.compile(r"[^(]*:[^(]*")  # the name in `file.py:Class(key=value)`
# the option that names the classes of a section again; those of all other sections are of the strategy
OPTIONS = {"backbone": "backbone", "backbone_values": "backbone", "data": "data-set", "stream": "data-set"}
# settings whose value may hold a colon; a `kind` of task comes from a recipe of the user's, else it is refused there
NOT_CODE = ("root", "weights", "loss_weights", "style", "device", "kind")


def record_path(folder: Path) -> Path:
    """The record of a run folder.

    Raises:
        RecordError: the folder is not a run; the message names a run below it.
    """
    path = Path(folder) / "result.json"
    if path.is_file():
        return path
    below = min(Path(folder).rglob(path.name), default=None)
    example = f", such as {below.parent}" if below else ""
    raise RecordError(f"{folder} is not a run: it has no {path.name}", f"name the folder of one run{example}")


def read_run(folder: Path) -> "Record":
    """The record of a run folder.

    Raises:
        RecordError: the folder is not a run, or its record cannot be read.
    """
    path = record_path(folder)
    from densecl.records.record import read_record

    return read_record(path)


def trusted_settings(
    record: "Record",
    folder: Path,
    strategy: str | None = None,
    backbone: str | None = None,
    data_set: str | None = None,
) -> dict[str, Any]:
    """The settings of a record, with each class that is not of the catalogue as the user names it.

    `strategy`, `backbone` and `data_set` are what the user typed, such as `mine.py:Mine+replay`; None if all such
    classes are ours. `folder` is for messages.

    Raises:
        RecordError: a class that is not named again, or whose source is not the recorded one.
        SettingError: a name that the record does not have.
    """
    names: dict[str, str] = {}
    typed = {"strategy": strategy, "backbone": backbone, "data-set": data_set}
    unnamed: dict[str, list[str]] = {}
    for option, text in typed.items():
        sections = {key: value for key, value in record.settings.items() if OPTIONS.get(key, "strategy") == option}
        recorded = sorted({code[0] for value in _texts(sections) if (code := CODE.match(value))})
        calls = parse(text) if text is not None else ()
        again = {_class_name(call.name): call.name for call in calls}
        if any(_class_name(name) not in again for name in recorded):
            unnamed[option] = recorded
            continue
        names |= {name: again[_class_name(name)] for name in recorded}
        used = getattr(record, option, "+".join(map(_class_name, recorded)) or "data sets of densecl")
        for call in calls:
            if call.name not in (*map(names.get, recorded), *used.split("+")):
                raise SettingError(f"--{option} {text}: {folder} was made with {used}", "correct or omit it")
            if call.arguments:
                raise SettingError(f"--{option} {text}: {folder} has its own values", f"write {call.name} alone")
    if unnamed:
        listed = ", ".join(name for recorded in unnamed.values() for name in recorded)
        raise RecordError(
            f"{folder} was made with {listed}, and code that a record names is not run",
            "if you trust it, name it: " + " ".join(f"--{option} {'+'.join(each)}" for option, each in unnamed.items()),
        )
    sources = record.environment.get("sources")
    for name in names.values():
        expected = sources.get(_class_name(name)) if isinstance(sources, dict) else None
        if expected is not None and source_hash(load_class(name)) != expected:
            raise RecordError(f"{name} is not the source that {folder} was made with", "name the file as it was then")
    return _renamed(record.settings, names)


def _class_name(reference: str) -> str:
    return reference.rpartition(":")[2]


def _texts(tree: Any, key: str = "") -> Iterator[str]:
    """All keys and texts of nested settings, without paths."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield name
            yield from _texts(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, key)
    elif isinstance(tree, str) and key not in NOT_CODE:
        yield tree


def _renamed(tree: Any, names: dict[str, str]) -> Any:
    """Nested settings with other names of classes."""
    if isinstance(tree, dict):
        return {_renamed(key, names): _renamed(value, names) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_renamed(value, names) for value in tree]
    return CODE.sub(lambda code: names.get(code[0], code[0]), tree, count=1) if isinstance(tree, str) else tree
