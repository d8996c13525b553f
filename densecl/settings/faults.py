"""Pydantic's errors as one line that names key, value and what to do."""

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from densecl.errors import UnknownNameError

Model = TypeVar("Model", bound=BaseModel)
# branches of a union, as pydantic writes them into the place of an error
BRANCH = re.compile(r"(int|float|str|bool)|(tuple|list|dict|literal|constrained|function)[-\[].*")
LONGEST = 40  # characters of a value in a message
# in place of pydantic's words, which name classes of Python
WANTED = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"), "write a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "write a table of keys and values"),
    "path_type": "write a path",
    "is_instance_of": "it cannot be written as a text or a number",
}


def first_fault(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """The first error as one line; names of `model` are suggested for unknown keys, `prefix` stands before each."""
    fault, *others = error.errors(include_url=False)
    parts = _parts(fault)
    if fault["type"].endswith("_type"):  # of another form; where a branch takes the form, what it says of the value
        alike = (other for other in others if _parts(other) == parts)
        fault = next((other for other in alike if not other["type"].endswith(("_type", "_parsing"))), fault)
    key = ".".join([prefix, *parts] if prefix else parts)
    if fault["type"] == "extra_forbidden":
        place = key.rpartition(".")[0]
        known = [
            f"{place}.{name}" if place else name for name in fault.get("ctx", {}).get("known") or _known(model, parts)
        ]
        return str(UnknownNameError("key", key, known))
    if fault["type"] == "missing":
        return f"the key '{key}' is missing"
    message = wanted(fault)
    if not key:  # an error of the whole model, whose message names the keys
        return message
    given = "" if isinstance(fault["input"], Mapping) else f" cannot be {shown(fault['input'])}"
    return f"'{key}'{given}: {message[:1].lower()}{message[1:]}"


def _parts(fault: Mapping[str, Any]) -> list[str]:
    """The place of an error, without branches of unions."""
    return [str(part) for part in fault["loc"] if not BRANCH.fullmatch(str(part))]


def wanted(fault: Mapping[str, Any]) -> str:
    """Say what is wanted in the place of an error of pydantic, without names of Python's classes."""
    message = one_line(fault["msg"]).removeprefix("Value error, ").replace("Tuple should have", "The list should have")
    return WANTED.get(fault["type"], message)


def validated(model: type[Model], values: Mapping[str, Any], context: Mapping[str, Any] | None = None) -> Model:
    """A model from plain values; the grammar reads `none` as None, which is the word where None alone is refused.

    Raises:
        ValidationError: what is wrong besides.
    """
    try:
        return model.model_validate(dict(values), context=context)
    except ValidationError as error:
        words = _places(error)
    try:
        return model.model_validate(_worded(values, words), context=context)
    except ValidationError as error:
        words -= _places(error)
    return model.model_validate(_worded(values, words), context=context)


def _places(error: ValidationError) -> set[tuple[int | str, ...]]:
    return {fault["loc"] for fault in error.errors(include_url=False) if fault["loc"]}  # without: of the whole model


def _worded(values: Mapping[str, Any], places: Iterable[tuple[int | str, ...]]) -> dict[str, Any]:
    """The values with the word "none" for None in some places."""
    changed = copy.deepcopy(dict(values))
    for *path, key in places:
        table: Any = changed
        for part in path:
            table = table.get(part) if isinstance(table, dict) else None
        if isinstance(table, dict) and key in table and table[key] is None:
            table[key] = "none"
    return changed


def shown(value: Any) -> str:
    """A value in a message: on one line, shortened."""
    text = one_line(repr(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def one_line(message: object) -> str:
    """Text without line breaks."""
    return " ".join(str(message).split())


def _known(model: type[BaseModel], parts: list[str]) -> list[str]:
    """The keys that are allowed in the place of an unknown one."""
    for part in parts[:-1]:
        if part.isdigit():  # an entry of a list, whose model is known
            continue
        inner = _inner_model(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            break
        model = inner
    return [field.alias or name for name, field in model.model_fields.items() if name != "source"]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, directly, optionally or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _inner_model(inner)) is not None), None)
