"""The plan of a run, made before anything is trained: settings resolved, names checked, folder and hash known."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densecl.data import open_dataset
from densecl.data.class_index import class_index
from densecl.data.dataset import DenseDataset, Progress
from densecl.errors import SettingError, UnknownNameError
from densecl.files import expanded
from densecl.models.network import Backbone
from densecl.records.layout import run_parts
from densecl.runner.methods import Method, check_fits, check_network, check_pretrained
from densecl.runner.objects import (
    BackboneLike,
    PluginLike,
    StrategyLike,
    backbone_of,
    method_of,
    recipe_of,
    scenario_content,
)
from densecl.settings.arguments import with_preset
from densecl.settings.backbone import backbone_class, resolve_backbone
from densecl.settings.catalogue import benchmark_recipe, source_hash
from densecl.settings.grammar import Call, parse_assignment, parse_one
from densecl.settings.overlay import merge
from densecl.settings.recipe import SECTIONS, RunSettings, StreamSettings, build, build_sections
from densecl.streams import protocol
from densecl.streams.groups import without_groups
from densecl.streams.scenario import Scenario
from densecl.tasks import Context

if TYPE_CHECKING:
    from densecl.runner.given import Given

EXCLUDED: Any = {"data": {"root"}, "loader": True, "device": True, "first": {"file"}}  # must not change the numbers
HASH_VERSION = 1  # raised when the code changes what the same settings compute


@dataclass(frozen=True)
class Plan:
    """A run, resolved.

    Attributes:
        steps: class ids (or numbers of domains, or of tasks) of each step of the benchmark, in the order of arrival.
        output: the folder of all results.
        backbone: the class of the backbone; None: one of ours, by its name in the settings.
        scenario: the data, where a scenario was given as an object.
        first: a first step that is given; None: it is trained, or shared.
        trusted: the names of data sets come from the user's command, so classes in files of the user's are imported.
    """

    settings: RunSettings
    method: Method
    steps: protocol.Steps
    output: Path
    backbone: type[Backbone] | None = None
    trusted: bool = False
    first: "Given | None" = None
    scenario: Scenario | None = None

    @cached_property
    def readers(self) -> tuple[tuple[DenseDataset, DenseDataset], ...]:
        """Training and test images: of the one data set, or of each task; raises DataError when they are not there."""
        data = self.settings.data
        if self.scenario is not None:
            return ((self.scenario.training.readers[0], self.scenario.tests[0].reader),)
        named = [(task.data, task.split) for task in self.settings.stream.tasks] or [(data.name, data.split)]
        opened = partial(open_dataset, root=data.root, trusted=self.trusted)
        return tuple((opened(name, split), opened(name, "test")) for name, split in named)

    @cached_property
    def labelled(self) -> list[tuple[DenseDataset, DenseDataset]]:
        """The readers with the truth that each task looks at; without masks where it looks at none."""
        tasks = [task.cls for task in self.settings.stream.tasks] or [None]
        return [
            (_seen(train, task), _seen(test, task)) for (train, test), task in zip(self.readers, tasks, strict=True)
        ]

    def scan(self, progress: Progress | None = None) -> None:
        """Read what the masks hold, which the hash covers; it is kept, and `progress` hears (done, total)."""
        for reader in (reader for pair in self.labelled for reader in pair):
            if reader.has_masks:
                class_index(reader, progress=progress)

    @property
    def train(self) -> DenseDataset:
        """The training images, those of the first task where there are several."""
        return self.readers[0][0]

    @cached_property
    def hash(self) -> str:
        """Eight hex digits over all that decides the numbers; not over paths, device and workers."""
        content = self.settings.model_dump(mode="json", exclude=EXCLUDED)
        content["backbone_values"] = self.backbone_by_content
        content["strategy"], content["backbone"] = map(_without_folder, (content["strategy"], content["backbone"]))
        content["plugins"] = {_without_folder(name): values for name, values in content["plugins"].items()}
        content["sources"] = [part.source for part in self.method.parts]
        content["sources"] += [source for source in [self.backbone_source] if source]
        content["data"]["name"] = _without_folder(content["data"]["name"])
        content["images"] = [reader.content for pair in self.labelled for reader in pair]
        if self.settings.stream.tasks:
            content["stream"]["tasks"] = tasks_by_content(self.settings)
            content["stream"].pop("loss_weights", None)
            for task in content["stream"]["tasks"]:
                task["data"] = _without_folder(task["data"])
        if self.scenario is not None:
            content["scenario"] = scenario_content(self.scenario)
        content["version"] = HASH_VERSION
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]

    @property
    def backbone_by_content(self) -> dict[str, Any]:
        """The backbone's arguments, with a weights file by its content instead of its path."""
        values = self.settings.backbone_values
        weights = values.get("weights")
        if weights == "timm":
            from densecl.models.weights import weights_place

            if (place := weights_place(values["encoder"])).is_file():  # put there by hand: used, not downloaded
                weights = str(place)
        if isinstance(weights, str) and Path(weights).is_file():
            return {**values, "weights": hashlib.sha256(Path(weights).read_bytes()).hexdigest()}
        return values

    @property
    def backbone_name(self) -> str:
        """The backbone in folder names and tables: `unet`, or `Small` for `small.py:Small`."""
        return self.settings.backbone.rpartition(":")[2]

    @property
    def backbone_source(self) -> str:
        """Hash of the file of a user's backbone, empty for ours."""
        return "" if self.backbone is None else source_hash(self.backbone)

    @property
    def folder(self) -> Path:
        """`<output>/<benchmark>/<strategy>/<backbone>/s<seed>-<hash>`."""
        s = self.settings
        encoder = s.backbone_values.get("encoder")
        parts = run_parts(s.benchmark, self.method.name, self.backbone_name, encoder, s.seed, self.hash)
        return self.output.joinpath(*(re.sub(r"[^\w.+=-]", "_", part) for part in parts))


def make_plan(
    benchmark: str | Scenario,
    strategy: StrategyLike,
    *,
    plugins: Sequence[PluginLike] = (),
    backbone: BackboneLike | None = None,
    seed: int = 0,
    assignments: Iterable[str] = (),
    data: Path | None = None,
    output: Path = Path("results"),
    weights: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    validation: float | None = None,
    workers: int | None = None,
    catalogue: Path | None = None,
    first: Path | None = None,
    first_map: Path | None = None,
) -> Plan:
    """Resolve names, objects and settings, later sources over earlier ones.

    Code defaults, the benchmark's recipe, its split's part, the backbone's part, the strategies' recipes, the
    benchmark's arguments, `assignments` ("training.epochs=2"), then the other arguments.
    """
    if first is None and first_map is not None:
        raise SettingError("--first-map without --first", "name the file of weights too")
    start = None
    if first is not None:
        from densecl.runner.given import given

        start = given(first, first_map)
    if not isinstance(benchmark, str | Scenario):
        fault = f"a {type(benchmark).__name__} is no benchmark that can be run"
        raise SettingError(fault, "give its name, or a scenario: a stream with its data")
    own = benchmark if isinstance(benchmark, Scenario) else None
    if isinstance(benchmark, Scenario):
        recipe = recipe_of(benchmark)
        call, split = Call(recipe.family), str(recipe.stream["split"])
        name = recipe.family
    else:
        call = parse_one(benchmark, "benchmark")
        recipe, split = benchmark_recipe(call.name, catalogue)
        name = recipe.family + split
    method = method_of(strategy, plugins, catalogue)
    named = method.strategy.backbone(name)
    if backbone is None or isinstance(backbone, str):
        body, given_class = parse_one(backbone or named or recipe.backbone, "backbone"), None
    else:
        body, given_class = backbone_of(backbone)
    if backbone is None and ".py:" in body.name:  # a file that a recipe names is relative to the recipe
        source = method.strategy.recipe.source if named and method.strategy.recipe else recipe.source
        body = replace(body, name=str(source.parent.absolute() / body.name))
    body_class = given_class or backbone_class(body.name)

    tree: dict[str, Any] = {"stream": {"split": split}}
    overlays = [recipe, recipe.split.get(split), recipe.backbones.get(body.name)]
    overlays += method.strategy.overlays(name)
    for overlay in overlays:
        if overlay is not None:
            tree = merge(tree, overlay.sections())
    classes: dict[str, type] = {"strategy": method.strategy.cls} | {part.name: part.cls for part in method.plugins}
    values = {"backbone": {}, **{name: {} for name in classes}}
    values["strategy"] = with_preset(method.strategy.cls, tree.pop("strategy", {}))
    for part in method.plugins:
        for overlay in part.overlays(name):
            sections = overlay.sections()
            # in a plugin's recipe: the plugin's own values
            values[part.name] |= with_preset(part.cls, sections.pop("strategy", {}))
            tree = merge(tree, sections)
    tree = merge(tree, _arguments_by_section(call))
    pairs = [assignments] if isinstance(assignments, str) else list(assignments)
    # a section's own length before that of its later steps, in whichever order they were typed: see `merge`
    # and a preset before the values that it would replace
    for text in sorted(pairs, key=lambda pair: (pair.partition("=")[0].count("."), ".preset=" not in pair)):
        tree = _assign(tree, values, text, classes)
    flags = {
        "data": {"root": data, "validation": validation},
        "training": {"precision": precision},
        "loader": {"workers": workers},
    }
    for section, options in flags.items():
        tree = merge(tree, {section: {key: value for key, value in options.items() if value is not None}})

    sections = build_sections(tree, recipe.own_kinds)
    # arguments written in the method's own text win over recipes and `--set`
    written = [values["strategy"], *(values[part.name] for part in method.plugins)]
    strategy_part, *plugin_parts = (
        replace(part, values={**below, **with_preset(part.cls, part.values)})
        for part, below in zip(method.parts, written, strict=True)
    )
    method = Method(strategy_part, tuple(plugin_parts))
    backbone_values = resolve_backbone(body_class, {**body.arguments, **values["backbone"]}, weights)
    decided = method.strategy.cls.backbone_values(method.strategy.resolved())  # type: ignore[attr-defined]
    backbone_values |= {key: value for key, value in decided.items() if key in backbone_values}
    settings = build(
        RunSettings,
        {
            "benchmark": name,
            "strategy": method.strategy.reference,
            "strategy_values": method.strategy.resolved(),
            "plugins": {part.reference: part.resolved() for part in method.plugins},
            "backbone": body.name,
            "backbone_values": backbone_values,
            "seed": seed,
            "device": usable_device(device),
            "first": start and start.settings,
            **sections._asdict(),
        },
    )
    stream = without_groups(settings.stream, settings.data.name)
    settings = _anchored(settings.model_copy(update={"stream": stream}))
    check_fits(method, settings)
    check_pretrained(settings, body_class)
    check_network(method, body_class, backbone_values)
    steps = planned_steps(settings.stream, recipe.classes)
    if own is not None and (method.joint, method.told) != (own.stream.joint, own.stream.by_task):
        raise SettingError(f"{method.name} and the scenario do not go together", "see `joint` and `by_task` of it")
    return Plan(settings, method, steps, Path(output), body_class, trusted=True, first=start, scenario=own)


def _anchored(settings: RunSettings) -> RunSettings:
    """The settings with absolute paths of what an evaluation reads, for it may be called in another folder."""

    def absolute(value: Any) -> Any:
        return str(expanded(value).absolute()) if isinstance(value, str) and expanded(value).is_file() else value

    data, stream, files = settings.data, settings.stream, ("style", "loss_weights")
    tasks = tuple(
        task.model_copy(update={key: absolute(getattr(task, key)) for key in files if hasattr(task, key)})
        for task in stream.tasks
    )
    root = None if data.root is None else expanded(data.root).absolute()
    return settings.model_copy(
        update={
            "data": data.model_copy(update={"root": root}),
            "stream": stream.model_copy(update={"tasks": tasks, "loss_weights": absolute(stream.loss_weights)}),
        }
    )


def planned_steps(stream: StreamSettings, classes: int) -> protocol.Steps:
    """Class ids of each step, in the order of arrival; of a sequence, the number of the step's task."""
    if stream.kind == "tasks":
        return tuple((k,) for k in range(len(stream.tasks)))
    return protocol.ordered(protocol.steps(stream.split, classes), stream.order)


def task_context(settings: RunSettings) -> Context:
    """The facts about a run that its tasks may use, all but classes."""
    return Context(root=settings.data.root, seed=settings.seed, weights=settings.stream.loss_weights)


def tasks_by_content(settings: RunSettings) -> list[dict[str, Any]]:
    """The tasks for the hash: files and a user's classes by what they hold, not by their path."""
    return [task.by_content(task_context(settings)) for task in settings.stream.tasks]


def _seen(reader: DenseDataset, task: Any) -> DenseDataset:
    """A reader with what the class of a task looks at; without one, with labels."""
    if task is None or task.needs_masks:
        return reader
    return reader.without_masks() if task.truth is None else reader.of(task.truth)


def _without_folder(reference: str) -> str:
    """A name; `folder/mine.py:Mine` as `mine.py:Mine`: its source decides, not where it lies."""
    file, colon, name = reference.partition(".py:")
    return f"{Path(file).name}.py:{name}" if colon else reference


def _arguments_by_section(call: Call) -> dict[str, Any]:
    """Put each key of `voc15-5s(setting=disjoint)` into the one section that knows it."""
    result: dict[str, Any] = {}
    for key, value in call.arguments.items():
        owners = [section for section, model in SECTIONS.items() if key in model.model_fields]
        if len(owners) > 1:
            choices = " or ".join(f"--set {owner}.{key}=..." for owner in owners)
            raise SettingError(f"'{key}' of {call.name} may mean several settings", f"write {choices}")
        if not owners:
            keys = [name for section in ("stream", "training", "evaluation") for name in SECTIONS[section].model_fields]
            raise UnknownNameError(f"key of {call.name}", key, keys)
        result.setdefault(owners[0], {})[key] = value
    return result


def _assign(
    tree: dict[str, Any], values: dict[str, dict[str, Any]], text: str, classes: Mapping[str, type]
) -> dict[str, Any]:
    """Apply one `section.key=value`."""
    key, value = parse_assignment(text)
    section, _, rest = key.partition(".")
    if not rest:
        sections = ", ".join(sorted([*SECTIONS, *values]))
        raise SettingError(f"--set {text}: '{key}' names no section", f"write SECTION.{key}=...; sections: {sections}")
    if section in values:
        values[section] |= with_preset(classes.get(section, object), {rest: value})
        return tree
    if section not in SECTIONS:
        raise UnknownNameError("section", section, [*SECTIONS, *values])
    overlay: Any = value
    for part in reversed(rest.split(".")):
        overlay = {part: overlay}
    return merge(tree, {section: overlay})


def usable_device(name: str | None) -> str:
    """Check the name of a device; without a name, a GPU if there is one, else the CPU."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()  # offered where torch has it; untested
    names = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count)), *(["mps"] if apple else [])]
    if name is not None and name not in names:
        raise SettingError(f"there is no device '{name}'", f"this machine has {', '.join(names)}")
    if count and name in (None, "cuda"):
        local = os.environ.get("LOCAL_RANK")  # torchrun starts a process for each GPU
        return "cuda" if local is None else f"cuda:{int(local) % count}"
    return name or "cpu"
