"""Backbones by name, or `file.py:Class` of a user, and their arguments."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecl.errors import SettingError, UnknownNameError
from densecl.models import backbone_in
from densecl.models.network import Backbone
from densecl.settings.arguments import check_arguments
from densecl.settings.catalogue import backbones, load_class

ENCODER = "encoder."  # begins the keys that are options of an encoder


def backbone_class(reference: str, folder: Path | None = None) -> type[Backbone]:
    """The class of a backbone that a person names: `unet`, or `small.py:Small`, relative to `folder`.

    Not for a name out of a record: it imports a user's file; see `packaged_backbone`.
    """
    if ":" not in reference:
        return packaged_backbone(reference)
    cls = load_class(reference, folder)
    if not issubclass(cls, Backbone):
        raise SettingError(f"'{reference}' is no backbone", "subclass densecl.models.Backbone")
    return cls


def packaged_backbone(name: str) -> type[Backbone]:
    """The class of one of our backbones; no other file is imported, so the name may come from a record."""
    if ":" in name:
        raise SettingError(f"the backbone '{name}' is a user's, and code that a record names is not run")
    if name not in backbones():
        raise UnknownNameError("backbone", name, backbones(), "or file.py:Class for one of your own")
    return backbone_in(name)


def build_backbone(backbone: str | type[Backbone], arguments: Mapping[str, Any] | None = None) -> Backbone:
    """One of our backbones by its name, or any by its class; DataError for weights that cannot be had or do not fit."""
    cls, _ = _class_and_name(backbone)
    return cls(**check_backbone(backbone, arguments or {}))


def check_backbone(backbone: str | type[Backbone], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with lists as tuples, compared with the signature of the class.

    `preset=NAME` stands for arguments of the class's `presets`, `encoder.KEY=VALUE` for an entry of `encoder_options`;
    what depends on these is settled.
    """
    cls, name = _class_and_name(backbone)
    given = _without_preset(cls, arguments, name)
    plain = {key: value for key, value in given.items() if not _is_option(cls, key)}
    checked = check_arguments(cls, plain, f"backbone {name}")
    options = {key.removeprefix(ENCODER): value for key, value in given.items() if _is_option(cls, key)}
    if options:
        checked["encoder_options"] = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    return {**cls.settled(checked), **checked}


def _without_preset(cls: type[Backbone], arguments: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arguments, with those that their `preset` stands for where they do not say it."""
    if not cls.presets or "preset" not in arguments:
        return dict(arguments)
    given = {key: value for key, value in arguments.items() if key != "preset"}
    preset = arguments["preset"]
    if preset not in (None, *cls.presets):
        raise UnknownNameError(f"preset of backbone {name}", str(preset), cls.presets)
    return {**(cls.presets[preset] if preset else {}), **given}


def _is_option(cls: type[Backbone], key: str) -> bool:
    """True for `encoder.KEY` of a class that takes options of its encoder."""
    return key.startswith(ENCODER) and "encoder_options" in inspect.signature(cls).parameters


def resolve_backbone(
    backbone: str | type[Backbone], arguments: Mapping[str, Any], weights: str | None = None
) -> dict[str, Any]:
    """All arguments of a backbone, as a record can hold them: defaults, `arguments`, `weights` of its encoder."""
    cls, name = _class_and_name(backbone)
    parameters = inspect.signature(cls).parameters
    if weights is not None:
        if "weights" not in parameters and weights != "none":
            raise SettingError(f"--weights {weights}: {name} has no encoder to load weights into", "leave it out")
        arguments = {**arguments, **({"weights": weights} if "weights" in parameters else {})}
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}
    values = {**defaults, **check_backbone(backbone, arguments)}
    options = values.pop("encoder_options", None) or {}
    values |= {f"{ENCODER}{key}": value for key, value in options.items()}
    for key, value in values.items():
        if not _is_plain(value):
            advice = "a record holds numbers, texts, true, false, none and tuples of them"
            raise SettingError(f"backbone {name} has {key}={value!r}", advice)
    return values


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _class_and_name(backbone: str | type[Backbone]) -> tuple[type[Backbone], str]:
    if isinstance(backbone, str):
        return packaged_backbone(backbone), backbone
    package, _, file = backbone.__module__.rpartition(".")
    return backbone, file if package == "densecl.models.backbones" else backbone.__name__
