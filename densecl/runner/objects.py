"""Methods, backbones and scenarios that are given as objects, as a plan takes those that are named."""

import copy
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densecl.data.dataset import DenseDataset
from densecl.errors import SettingError
from densecl.models.network import Backbone, Features
from densecl.runner.methods import Method, Part, joined, parse_method
from densecl.settings.arguments import hyperparameters
from densecl.settings.catalogue import source_hash, strategy_recipes
from densecl.settings.grammar import Call, Value
from densecl.settings.recipe import BenchmarkRecipe
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.scenario import Scenario
from densecl.tensors import checksum

StrategyLike = str | type[Strategy] | Strategy
PluginLike = str | type[Plugin] | Plugin
BackboneLike = str | type[Backbone] | nn.Module


def method_of(strategy: StrategyLike, plugins: Sequence[PluginLike] = (), catalogue: Path | None = None) -> Method:
    """The method of a strategy and plugins, each a text, a class, or an instance, of which a run makes new ones.

    Of an instance the hyper-parameters that differ from the defaults are given; recipes decide the others.
    """
    if isinstance(strategy, str) and all(isinstance(plugin, str) for plugin in plugins):
        return parse_method("+".join(map(str, (strategy, *plugins))), catalogue)
    parts: list[Part] = []
    for given in (strategy, *plugins):
        if isinstance(given, str):
            text = given if not parts else f"finetune+{given}"
            parts += parse_method(text, catalogue).parts if not parts else parse_method(text, catalogue).plugins
        else:
            parts.append(_part(given, catalogue))
    return joined(parts, "+".join(part.name for part in parts))


def _part(given: "type[Strategy | Plugin] | Strategy | Plugin", catalogue: Path | None) -> Part:
    cls = given if isinstance(given, type) else type(given)
    if not issubclass(cls, Strategy | Plugin):
        raise SettingError(f"{cls.__name__} is neither a strategy nor a plugin", "subclass densecl.Strategy or .Plugin")
    values: dict[str, Any] = {}
    if not isinstance(given, type):
        base = Strategy if issubclass(cls, Strategy) else Plugin
        own = {key: (getattr(given, key), default) for key, (_, default) in hyperparameters(cls, base).items()}
        values = {key: value for key, (value, default) in own.items() if value != default}
    place = f"{cls.__module__}:{cls.__qualname__}"
    for recipe in strategy_recipes(catalogue).values():
        if recipe.class_ == place:
            return Part(recipe.name, recipe.name, cls, {**recipe.arguments, **values}, recipe)
    return Part(cls.__name__, reference_of(cls), cls, values, None, source_hash(cls))


def reference_of(cls: type) -> str:
    """`file.py:Class` for a class in a file, by which it can be named later; its name for one of a notebook."""
    from densecl.settings.source import file_of_class

    path = file_of_class(cls)
    return cls.__name__ if path is None else f"{path}:{cls.__qualname__}"


def backbone_of(given: type[Backbone] | nn.Module) -> tuple[Call, type[Backbone]]:
    """The name and class of a backbone that is a class or a module, of which a run trains a copy.

    A module that is no `Backbone` maps images (B, 3, H, W) to features (B, channels, h, w).
    """
    if isinstance(given, type):
        if not issubclass(given, Backbone):
            raise SettingError(f"{given.__name__} is no backbone", "subclass densecl.models.Backbone, or give a module")
        package, _, file = given.__module__.rpartition(".")
        return Call(file if package == "densecl.models.backbones" else reference_of(given)), given
    module = given if isinstance(given, Backbone) else Features2d(given)
    installed = type(given).__module__.startswith(("torch.", "torchvision.", "timm."))
    source = "" if installed else source_hash(type(given))
    shown = f"{given} {type(given).__qualname__} {source} {checksum(given.state_dict())}"
    content = hashlib.sha256(shown.encode())
    arguments: dict[str, Value] = {"content": content.hexdigest()[:16]}
    return Call(type(given).__name__, arguments), _copies_of(module, type(given).__name__)


class Features2d(Backbone):
    """A module that maps images (B, 3, H, W) to features (B, channels, h, w), as a backbone."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        training = module.training
        try:
            with torch.no_grad():
                features = module.eval()(torch.zeros(1, 3, 64, 64, device=device))
        except Exception as error:
            raise SettingError(f"{type(module).__name__} fails on an image of 64x64: {error}") from error
        finally:
            module.train(training)
        if not isinstance(features, Tensor) or features.ndim != 4:
            shown = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            advice = "a module gives a tensor (B, channels, h, w); subclass densecl.models.Backbone for more"
            raise SettingError(f"{type(module).__name__} gives {shown} for an image", advice)
        self.channels = features.shape[1]

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W)."""
        features = self.module(image)
        return Features(features, (features,))


def _copies_of(module: Backbone, name: str) -> type[Backbone]:
    """A class whose instances are copies of a module."""

    class Copy(Backbone):
        def __new__(cls, content: str) -> Any:
            return copy.deepcopy(module)

        def __init__(self, content: str):
            super().__init__()

    Copy.__name__ = Copy.__qualname__ = name
    return Copy


def recipe_of(scenario: Scenario) -> BenchmarkRecipe:
    """A recipe that says of a scenario what its settings would be; training as by default, images as they are."""
    stream, samples = scenario.stream, scenario.training
    if stream.kind != "classes" or not all(isinstance(reader, DenseDataset) for reader in samples.readers):
        raise SettingError("a scenario of a run has classes and data sets", "name a benchmark for a sequence of tasks")
    mean, std = ([round(float(v), 6) for v in part.flatten()] for part in scenario.normalisation)
    order = [label for group in stream.groups for label in group]
    return BenchmarkRecipe(
        family="own",
        summary="a scenario given as an object",
        classes=len(stream.class_names) - 1,
        splits=(),
        backbone="unet(width=16)",
        data={"name": samples.readers[0].name, "mean": mean, "std": std},
        stream={
            "split": "-".join(str(len(group)) for group in stream.groups),
            "order": order,
            "setting": stream.setting if stream.setting != "domain" else "overlapped",
            "labels": stream.labels,
            "kind": "domain" if stream.setting == "domain" else "class",
        },
        training={"augmentation": "none", "crop": "full"},
        evaluation={"size": "full"},
    )


def scenario_content(scenario: Scenario) -> list[str]:
    """List all that decides the samples of a scenario beside the data sets."""
    transforms = [re.sub(r" at 0x[0-9a-f]+", "", repr(part)) for own in scenario.training.transforms for part in own]
    return [scenario.fingerprint, *transforms, re.sub(r" at 0x[0-9a-f]+", "", repr(scenario.tests[0].transform))]
