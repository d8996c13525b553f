"""Networks: backbones, and heads that grow. Plain torch. `densecl.models.UNet` is the class in `backbones/unet.py`."""

import importlib
import pkgutil
from typing import Any

from densecl.models import backbones
from densecl.models.heads import Heads
from densecl.models.network import Backbone, Features, Network, Output

__all__ = ["Backbone", "Features", "Heads", "Network", "Output", "backbone_in"]


def backbone_in(name: str) -> type[Backbone]:
    """The one class of `backbones/NAME.py` that is a Backbone."""
    module = importlib.import_module(f"densecl.models.backbones.{name}")
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Backbone)]
    (cls,) = (cls for cls in classes if cls.__module__ == module.__name__)
    return cls


def __getattr__(name: str) -> Any:
    for file in pkgutil.iter_modules(backbones.__path__) if name[:1].isupper() else ():
        if (cls := backbone_in(file.name)).__name__ == name:
            return cls
    raise AttributeError(f"module 'densecl.models' has no attribute '{name}'")
