"""Settings of a data set as keys of `[data]`: `cities = ["ulm"]` for `name = "cityscapes(cities=(ulm,))"`."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from densecl.errors import DenseCLError, UnknownNameError
from densecl.files import expanded
from densecl.settings.grammar import format_call, parse_one

_SETS = Path(__file__).parents[1] / "data" / "sets"


def folded(data: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The values of `[data]` with the keys that are settings of its data set in the parentheses of its name.

    `fields` are the keys of `[data]` itself. UnknownNameError for a key that is neither.
    """
    fields, name = set(fields), data.get("name")
    others = {key: value for key, value in data.items() if key not in fields}
    if not others or not isinstance(name, str):
        return dict(data)
    call = parse_one(name, "data set")
    own = _settings(call.name)
    for key in others:
        if own and key not in own:
            raise UnknownNameError("key", f"data.{key}", [f"data.{name}" for name in (*fields, *own)])
    if not own:  # the model of the section words what is unknown
        return dict(data)
    arguments = {**call.arguments, **{key: _plain(value) for key, value in others.items()}}
    kept = {key: value for key, value in data.items() if key in fields}
    return {**kept, "name": format_call(replace(call, arguments=arguments))}


@cache
def _settings(name: str) -> tuple[str, ...]:
    """The settings of a data set, read from its source; nothing is imported."""
    if ":" in name:
        from densecl.settings.source import read_hyperparameters

        try:
            return tuple(argument.name for argument in read_hyperparameters(name))
        except DenseCLError:  # told when it is opened
            return ()
    path = _SETS / f"{name}.py"
    if not path.is_file():
        return ()
    bodies = [node.body for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef)]
    lines = [line for body in bodies for line in body if isinstance(line, ast.AnnAssign) and line.value is not None]
    return tuple(line.target.id for line in lines if isinstance(line.target, ast.Name))


def _plain(value: Any) -> Any:
    """A value of TOML as the grammar has it: lists as tuples."""
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def count_classes(content: dict[str, Any]) -> None:
    """Take the number of classes from their names, where `[data]` has them."""
    data = content.get("data")
    if isinstance(data, dict) and isinstance(data.get("classes"), list) and "family" in content:
        content.setdefault("classes", len(data["classes"]))


def anchor_data(tree: dict[str, Any], folder: Path) -> None:
    """Make paths absolute: `file.py:Class` and the root of data are relative to the folder of the recipe."""
    for key, value in tree.items():
        if isinstance(value, dict):
            if key == "data" and isinstance(value.get("name"), str):
                value["name"] = anchored(value["name"], folder)
            if key == "data" and isinstance(value.get("root"), str):
                value["root"] = str(folder / expanded(value["root"]))
            anchor_data(value, folder)
        for task in value if key == "tasks" and isinstance(value, list) else ():
            if isinstance(task, dict) and isinstance(task.get("data"), str):
                task["data"] = anchored(task["data"], folder)


def anchored(name: str, folder: Path) -> str:
    """`file.py:Class(...)` with an absolute path, that of `file.py` in `folder`; any other name as it is."""
    if ".py:" not in name:
        return name
    call = parse_one(name, "name")
    return format_call(replace(call, name=str((folder / Path(call.name).expanduser()).resolve())))
