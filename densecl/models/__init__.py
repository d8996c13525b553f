"""Networks: backbones by name, heads that grow. Plain torch."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from densecl.errors import SettingError, UnknownNameError
from densecl.models.backbones.bisenet import BiSeNet
from densecl.models.backbones.deeplabv3 import DeepLabV3
from densecl.models.backbones.fcn import FCN
from densecl.models.backbones.resblock import ResBlockNet
from densecl.models.backbones.unet import UNet
from densecl.models.heads import Heads
from densecl.models.network import Backbone, Features, Network, Output

__all__ = [
    "FCN",
    "Backbone",
    "BiSeNet",
    "DeepLabV3",
    "Features",
    "Heads",
    "Network",
    "Output",
    "ResBlockNet",
    "UNet",
    "build_backbone",
]

BACKBONES: Mapping[str, type[Backbone]] = {
    "bisenet": BiSeNet,
    "deeplabv3": DeepLabV3,
    "fcn": FCN,
    "resblock": ResBlockNet,
    "unet": UNet,
}


def build_backbone(name: str, arguments: Mapping[str, Any] | None = None) -> Backbone:
    """A backbone by name, its arguments checked against the class's signature.

    Args:
        name: one of `BACKBONES`.
        arguments: keyword arguments of the class; a list stands for a tuple.

    Raises:
        UnknownNameError: no such backbone, encoder or argument.
        SettingError: an argument of a wrong type or value.
        DataError: weights that cannot be fetched, read or do not fit.
    """
    checked = check_backbone(name, arguments or {})
    return BACKBONES[name](**checked)


def check_backbone(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with lists as tuples, after names and types have been compared with the class's signature.

    Raises:
        UnknownNameError: no such backbone or argument. SettingError: an argument of a wrong type.
    """
    if name not in BACKBONES:
        raise UnknownNameError("backbone", name, BACKBONES)
    known = [key for key in inspect.signature(BACKBONES[name].__init__).parameters if key != "self"]
    hints = get_type_hints(BACKBONES[name].__init__)
    checked = {}
    for key, value in arguments.items():
        if key not in known:
            raise UnknownNameError(f"key of backbone {name}", key, known)
        value = tuple(value) if isinstance(value, list) else value
        if key == "weights" and value is None:  # the grammar reads `none` as nothing
            value = "none"
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise SettingError(f"backbone {name} has {key}={value!r}", f"{problem[0].lower()}{problem[1:]}") from error
    return checked
