"""The strategy and the plugins that a text such as `mib+replay(memory=100)` names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from densecl.errors import SettingError, SpecError
from densecl.models.network import Backbone
from densecl.settings.arguments import check_arguments, resolve
from densecl.settings.backbone import build_backbone
from densecl.settings.catalogue import known, load_class, source_hash, strategy_recipes
from densecl.settings.grammar import Call, parse
from densecl.settings.recipe import RunSettings, SectionOverlay, StrategyRecipe
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.stream import check_names
from densecl.tasks import KINDS
from densecl.training.by_part import differ

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One named part of a method: a strategy, one of our plugins, or a stock Avalanche plugin."""

    name: str  # in folder names and tables
    reference: str  # the text that finds it again
    cls: type
    values: dict[str, Any] = field(default_factory=dict)  # hyper-parameters given so far
    recipe: StrategyRecipe | None = None  # None for a class from a user's file
    source: str = ""  # hash of that file, so that an edited method is another run

    @property
    def stock(self) -> bool:
        """True for one of Avalanche's own plugins."""
        return not issubclass(self.cls, Strategy | Plugin)

    def overlays(self, benchmark: str) -> list[SectionOverlay]:
        """Changes that its recipe makes on a benchmark, the more general patterns first."""
        return _matching(self.recipe.benchmarks if self.recipe else {}, benchmark)

    def backbone(self, benchmark: str) -> str | None:
        """The backbone its recipe names for a benchmark: the one of the most special pattern."""
        return next(reversed(_matching(self.recipe.networks if self.recipe else {}, benchmark)), None)

    def resolved(self) -> dict[str, Any]:
        """All hyper-parameters, checked."""
        if self.stock:  # its annotations are Avalanche's
            return check_arguments(self.cls, self.values, self.name, strict=False)
        return resolve(self.cls, Strategy if issubclass(self.cls, Strategy) else Plugin, self.values, self.name)


def _matching(values: Mapping[str, T], benchmark: str) -> list[T]:
    """The values whose patterns fit a benchmark's name, those of more general patterns first."""
    fitting = [pattern for pattern in values if fnmatchcase(benchmark, pattern)]
    return [values[pattern] for pattern in sorted(fitting, key=lambda pattern: ("*" not in pattern, len(pattern)))]


@dataclass(frozen=True)
class Method:
    """Exactly one strategy and any number of plugins."""

    strategy: Part
    plugins: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The name in folder names and tables: `mib+replay`."""
        return "+".join(part.name for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The strategy and the plugins."""
        return (self.strategy, *self.plugins)

    @property
    def joint(self) -> bool:
        """True if all steps are trained as one."""
        return self.strategy.cls.joint  # type: ignore[attr-defined]

    @property
    def told(self) -> bool:
        """True if it must be told the task, or the step of a class-incremental stream, that is asked for."""
        return self.strategy.cls.oracle == "task"  # type: ignore[attr-defined]

    @property
    def resumable(self) -> bool:
        """True if every plugin can give and take its state."""
        return not any(part.stock for part in self.plugins)


def parse_method(text: str, catalogue: Path | None = None) -> Method:
    """The method behind `mib+replay(memory=100)` or `mine.py:Mine(weight=3)`."""
    recipes = strategy_recipes(catalogue)
    return joined([_part(call, recipes, later=bool(place)) for place, call in enumerate(parse(text))], text)


def joined(parts: Sequence[Part], text: str) -> Method:
    """The method of parts that `text` names; SpecError unless one is a strategy, and all others different plugins."""
    strategies = [part for part in parts if issubclass(part.cls, Strategy)]
    plugins = tuple(part for part in parts if not issubclass(part.cls, Strategy))
    if len(strategies) > 1:
        names = " and ".join(part.name for part in strategies)
        raise SpecError(
            f"'{text}' names two strategies, {names}", "each owns the loss: keep one, and add plugins with +"
        )
    if not strategies:
        raise SpecError(f"'{text}' names no strategy, only plugins", f"did you mean 'finetune+{text}'?")
    names = [part.name for part in plugins]
    if twice := sorted(name for name in names if names.count(name) > 1):
        raise SpecError(f"'{text}' names {twice[0]} twice", "name each plugin once")
    return Method(strategies[0], plugins)


def _part(call: Call, recipes: Mapping[str, StrategyRecipe], later: bool) -> Part:
    recipe = known(recipes, call.name, later) if ":" not in call.name else recipes.get(call.name)
    cls = load_class(recipe.class_, recipe.source.parent) if recipe else load_class(call.name)
    # a stock plugin is Avalanche's, or a user's on Avalanche's callbacks
    stock = any(base.__module__.startswith("avalanche.") and base.__name__ == "BasePlugin" for base in cls.__mro__)
    if not issubclass(cls, Strategy | Plugin) and not stock:
        raise SettingError(
            f"'{call.name}' is neither a strategy nor a plugin", "subclass densecl.Strategy or densecl.Plugin"
        )
    name, defaults = (recipe.name, recipe.arguments) if recipe else (cls.__name__, {})
    return Part(name, call.name, cls, {**defaults, **call.arguments}, recipe, source_hash(cls))


def build_plugins(method: Method) -> list[Any]:
    """Build the plugins of a method, each with the name of its loss term; two of one name are refused."""
    plugins, names = [], {"task", "regulariser"}
    for part in method.plugins:
        plugin = part.cls(**part.resolved())
        if isinstance(plugin, Plugin):
            if not type(plugin).name:
                plugin.name = part.name  # type: ignore[misc]
            if plugin.name in names:
                raise SettingError(f"two loss terms are named '{plugin.name}'", "give the plugin class another name")
            names.add(plugin.name)
        plugins.append(plugin)
    return plugins


def check_fits(method: Method, settings: RunSettings) -> None:
    """Check that a method can learn a stream and its tasks, before any data is read."""
    tasks, benchmark = settings.stream.tasks, settings.benchmark
    strategy: Any = method.strategy.cls
    for task in tasks:
        if task.cls.kind not in strategy.kinds and not strategy.kinds.issuperset(KINDS):
            kinds = ", ".join(sorted(strategy.kinds))
            raise SettingError(
                f"{method.strategy.name} cannot learn {task.kind} ('{task.name}')", f"it learns: {kinds}"
            )
    kind = "tasks" if settings.stream.kind == "tasks" else "classes"
    if kind == "tasks":
        check_names([task.name for task in tasks])
    if method.told and differ(settings.training):
        raise SettingError(
            f"training.parts does not go with {method.strategy.name}, which decides itself what a task trains",
            "leave it out",
        )
    if method.told and (settings.training.freezes(0) or settings.training.freezes(1)):
        raise SettingError(
            f"training.freeze does not go with {method.strategy.name}, which decides itself what a task trains",
            "leave it out",
        )
    if method.told and settings.stream.kind == "domain":
        raise SettingError(
            f"{method.strategy.name} learns tasks, and all steps of {benchmark} are one task in images of other kinds",
            "use a stream of tasks or of classes",
        )
    for part in method.parts:
        if part.stock:
            from densecl.training.stock import check_stock

            check_stock(part.name, part.cls, part.values, settings.data.validation)
        streams = getattr(part.cls, "streams", {"classes"})
        # steps of a method that is told them are tasks: heads by task are what a plugin must know
        if kind in streams and not (method.told and part is not method.strategy and "tasks" not in streams):
            continue
        if kind == "tasks":
            raise SettingError(
                f"{part.name} learns classes that arrive over time, and {benchmark} is a sequence of tasks",
                "see `densecl list strategies` for those of task sequences, such as piggyback",
            )
        if part is not method.strategy and kind in streams:
            raise SettingError(
                f"{part.name} cannot be joined to {method.strategy.name}, whose steps have heads of their own",
                "it needs a strategy with one head for all classes, such as finetune",
            )
        raise SettingError(
            f"{part.name} learns a sequence of tasks, and {benchmark} is one task whose classes arrive over time",
            "use a benchmark of several tasks, such as shapes-3tasks",
        )


def check_pretrained(settings: RunSettings, backbone: type[Backbone]) -> None:
    """Refuse a task that pretrained weights perform on a network without them, before any data is read."""
    given = next((task.name for task in settings.stream.tasks if task.values.get("pretrained")), None)
    if given is None:
        return
    if not backbone.keeps_classifier:
        fault = f"task '{given}' is pretrained, and {settings.backbone} does not keep the last layer of its weights"
        raise SettingError(fault, "use the backbone trunk")
    if settings.backbone_values.get("weights") in (None, "none"):
        fault = f"task '{given}' is pretrained, and {settings.backbone} has random weights"
        raise SettingError(fault, "give --weights timm or a file")


def check_network(method: Method, backbone: type[Backbone], values: Mapping[str, Any]) -> None:
    """Refuse a backbone that lacks what the strategy or a plugin needs of it, before any data is read.

    It is built without memory or weights; a user's that cannot be is looked at when the run builds it.
    """
    strategy: Any = method.strategy.cls
    needs: list[frozenset[str]] = [getattr(part.cls, "needs", frozenset()) for part in method.parts]
    if not any(needs) and not strategy.maps:
        return
    import torch

    try:
        with torch.device("meta"):
            built = build_backbone(backbone, {**values, **({"weights": "none"} if "weights" in values else {})})
    except (NotImplementedError, RuntimeError):
        return
    for part, properties in zip(method.parts, needs, strict=True):
        try:
            built.require(properties)
            if part is method.strategy and strategy.maps:
                built.keep_raw()
        except SettingError as error:
            raise SettingError(f"{part.name}: {error}") from None
