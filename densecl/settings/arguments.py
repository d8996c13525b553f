"""Hyper-parameters of strategies and plugins (annotated class attributes), and arguments of constructors."""

import ast
import contextlib
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, get_origin, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError, create_model

from densecl.errors import SettingError, UnknownNameError
from densecl.settings.faults import validated, wanted


def hyperparameters(cls: type, stop: type) -> dict[str, tuple[Any, Any]]:
    """Name -> (type, default) of the annotated public class attributes of `cls` and its bases but those of `stop`."""
    result: dict[str, tuple[Any, Any]] = {}
    for base in reversed(cls.__mro__):
        if issubclass(stop, base):
            continue
        try:
            hints = get_type_hints(base, include_extras=True)  # constraints, such as Annotated[int, Field(ge=1)]
        except NameError as error:
            raise SettingError(f"{cls.__name__}: an annotation cannot be read: {error}") from error
        for name in vars(base).get("__annotations__", {}):
            if (
                name in vars(base)
                and not name.startswith("_")
                and ClassVar not in (hints[name], get_origin(hints[name]))
            ):
                result[name] = (hints[name], vars(base)[name])
    return result


@cache
def owned_names(base: type) -> frozenset[str]:
    """Names that a base class uses itself: its methods and attributes, those that a method sets on `self` included."""
    names = set(dir(base))
    for cls in base.__mro__:
        names |= vars(cls).get("__annotations__", {}).keys()
        with contextlib.suppress(OSError, TypeError):  # a class without Python source
            tree = ast.parse(Path(inspect.getfile(cls)).read_text(encoding="utf-8"))
            bodies = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__]
            stored = [n for body in bodies for n in ast.walk(body) if isinstance(n, ast.Attribute)]
            names |= {n.attr for n in stored if isinstance(n.ctx, ast.Store) and ast.unparse(n.value) == "self"}
    return frozenset(names)


def with_preset(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and what their `preset` stands for where they do not say it."""
    return {**getattr(cls, "presets", {}).get(values.get("preset"), {}), **values}


def resolve(cls: type, stop: type, values: dict[str, Any], name: str) -> dict[str, Any]:
    """All hyper-parameters of `cls`: the defaults, overlaid by `values`; a name that `stop` uses itself is refused."""
    values = with_preset(cls, values)
    parameters = hyperparameters(cls, stop)
    if owned := sorted(owned_names(stop) & parameters.keys()):
        raise SettingError(
            f"{cls.__name__}.{owned[0]} cannot be a hyper-parameter: {stop.__name__} uses this name itself",
            "give it another name",
        )
    for key in values:
        if key not in parameters:
            raise UnknownNameError(f"hyper-parameter of {name}", key, parameters)
    model = create_model(cls.__name__, __config__=ConfigDict(extra="forbid"), **parameters)  # type: ignore[call-overload]
    try:
        return validated(model, values).model_dump()
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"][:1]))
        raise SettingError(f"{name}.{key} cannot be {fault['input']!r}: {wanted(fault).lower()}") from error


def check_arguments(cls: type, arguments: Mapping[str, Any], name: str, *, strict: bool = True) -> dict[str, Any]:
    """Arguments of a constructor, with lists as tuples, compared with its signature.

    Not `strict`, values are converted, and annotations that cannot be read are not looked at.
    """
    parameters = inspect.signature(cls).parameters
    known = {key: p for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise SettingError(f"{name} needs a value for '{key}'", f"write {key}=... in its parentheses")
    checked = {}
    for key, value in arguments.items():
        if key not in known:
            raise UnknownNameError(f"key of {name}", key, known)
        value = tuple(value) if isinstance(value, list) else value
        try:
            adapter = TypeAdapter(get_type_hints(cls.__init__).get(key, Any))
            try:
                checked[key] = adapter.validate_python(value, strict=strict)
            except ValidationError:
                if value is not None:
                    raise
                checked[key] = adapter.validate_python("none", strict=strict)  # as a word, see `validated`
        except (NameError, PydanticUserError) as error:
            if strict:
                raise SettingError(f"{name}: the annotation of '{key}' cannot be read: {error}") from error
            checked[key] = value
        except ValidationError as error:
            problem = wanted(error.errors(include_url=False)[0])
            raise SettingError(f"{name} has {key}={value!r}", f"{problem[0].lower()}{problem[1:]}") from error
    return checked
