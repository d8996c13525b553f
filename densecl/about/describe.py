"""`densecl show` and `densecl cite` as text."""

import inspect
import re
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from densecl.errors import DataError, DenseCLError, UnknownNameError
from densecl.settings.catalogue import backbones, benchmark_recipe, entries, load_class, strategy_recipes
from densecl.settings.grammar import parse
from densecl.settings.recipe import BenchmarkRecipe, Sections, StrategyRecipe, build_sections, merge
from densecl.streams import protocol


def show_name(name: str, data: Path | None = None, catalogue: Path | None = None) -> str:
    """What a benchmark, strategy, plugin or backbone is.

    Raises:
        UnknownNameError: there is nothing of that name.
    """
    recipes = strategy_recipes(catalogue)
    if name in recipes:
        return _strategy(recipes[name])
    if name in backbones():
        return _backbone(name)
    try:
        recipe, split = benchmark_recipe(name, catalogue)
    except UnknownNameError:
        known = [*recipes, *backbones(), *(entry.name for entry in entries("benchmarks", catalogue))]
        raise UnknownNameError("name", name, known) from None
    return _benchmark(recipe, split, data)


def bibtex(names: str, catalogue: Path | None = None) -> str:
    """The BibTeX entries of names joined by + or commas.

    Raises:
        UnknownNameError: a name that does not exist; DenseCLError: none of them comes from a paper.
    """
    recipes = strategy_recipes(catalogue)
    texts = []
    for name in _names(names):
        if name in recipes:
            texts.append(recipes[name].bibtex)
            continue
        try:
            texts.append(benchmark_recipe(name, catalogue)[0].bibtex)
        except UnknownNameError:
            known = [*recipes, *(entry.name for entry in entries("benchmarks", catalogue))]
            raise UnknownNameError("name", name, known) from None
    found = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not found:
        raise DenseCLError(f"'{names}' comes from no paper")
    return "\n\n".join(found)


def _names(text: str) -> list[str]:
    """`voc15-5s, mib(distillation=5)+replay` -> voc15-5s, mib, replay."""
    bare = re.sub(r"\([^()]*(?:\([^()]*\)[^()]*)*\)", "", text)  # arguments have commas of their own
    return [call.name for part in bare.split(",") for call in parse(part)]


def _strategy(recipe: StrategyRecipe) -> str:
    from densecl.settings.arguments import hyperparameters
    from densecl.strategies.base import Plugin, Strategy

    cls = load_class(recipe.class_, recipe.source.parent)
    lines = [f"{recipe.name} ({recipe.kind}): {recipe.summary}", f"class      {recipe.class_}"]
    if recipe.paper:
        lines.append(f"paper      {recipe.paper}")
    if issubclass(cls, Strategy | Plugin):
        stop = Strategy if issubclass(cls, Strategy) else Plugin
        found = {key: (_kind(kind), default) for key, (kind, default) in hyperparameters(cls, stop).items()}
    else:
        parameters = inspect.signature(cls).parameters.values()
        found = {p.name: ("", recipe.arguments.get(p.name, p.default)) for p in parameters}
    for key, (kind, default) in found.items():
        shown = "required" if default is inspect.Parameter.empty else repr(default)
        lines.append(f"  {key} = {shown}" + (f"  ({kind})" if kind else ""))
    lines += [f"deviates   {text}" for text in recipe.deviations]
    lines += [f"on {pattern}: {overlay.sections()}" for pattern, overlay in recipe.benchmarks.items()]
    return "\n".join(lines)


def _kind(annotation: Any) -> str:
    """`int` for int and for Annotated[int, ...]."""
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return getattr(plain, "__name__", str(plain))


def _backbone(name: str) -> str:
    from densecl.settings.backbone import resolve_backbone

    lines = [f"{name}: {backbones()[name]}"]
    return "\n".join(lines + [f"  {key} = {value!r}" for key, value in resolve_backbone(name, {}, None).items()])


def _benchmark(recipe: BenchmarkRecipe, split: str, data: Path | None) -> str:
    tree = merge(recipe.sections(), recipe.split[split].sections()) if split in recipe.split else recipe.sections()
    tree = merge(tree, {"stream": {"split": split}})
    lines = [f"{recipe.family}{split}: {recipe.summary}"]
    if recipe.paper:
        lines.append(f"paper      {recipe.paper}")
    lines.append(f"backbone   {recipe.backbone}")
    settings = build_sections(tree, recipe.own_kinds)
    by_task = settings.stream.kind == "tasks"
    for section, model in settings._asdict().items():
        values = model.model_dump(mode="json", exclude_none=True, exclude={"tasks"} if section == "stream" else None)
        if values and section != "loader":
            lines.append(f"{section:10} " + ", ".join(f"{key}={_plain(value)}" for key, value in values.items()))
    steps = () if by_task else protocol.steps(split, recipe.classes)
    lines += ["", *(_tasks(settings) if by_task else _steps(settings, steps, data))]
    return "\n".join(lines + ([f"\n{recipe.notes.strip()}"] if recipe.notes else []))


def _tasks(settings: Sections) -> list[str]:
    """One line a task: what it learns, from what, for how long, and settings of its own."""
    lines = []
    for k, task in enumerate(settings.stream.tasks):
        epochs, iterations = settings.training.length(k)
        length = f"{epochs} epochs" if iterations is None else f"{iterations} iterations"
        own = task.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name", "kind", "data"})
        shown = "".join(f", {key}={value}" for key, value in own.items())
        lines.append(f"task {k}  {task.name}: {task.kind.replace('_', ' ')} on {task.data}, {length}{shown}")
    return lines


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_plain(item)}" for key, item in value.items()) + "}"
    return str(value)


def _steps(settings: Sections, steps: protocol.Steps, data: Path | None) -> list[str]:
    """One line a step, with names, and with counts of images and the cost when the data is there."""
    from densecl.data import open_dataset
    from densecl.data.class_index import class_index
    from densecl.runner.build import domains_of
    from densecl.training.loader import step_length

    unit = "cities" if settings.stream.kind == "domain" else "classes"
    try:
        train = open_dataset(settings.data.name, settings.data.split, data)
    except DataError:
        if data is not None:
            raise
        return [f"step {k}: {unit} {', '.join(map(str, step))}" for k, step in enumerate(steps)]
    if unit == "cities":
        counts = {"images": domains_of(train, steps)}
        names = [list(train.domains())[number - 1] for step in steps for number in step]
    else:
        presence = class_index(train)
        counts = {
            setting: protocol.select(presence, steps, setting) for setting in ("overlapped", "disjoint", "partitioned")
        }
        names = [train.class_names[c - 1] for step in steps for c in step]
    lines = ["step  " + "  ".join(counts) + f"  {unit}"]
    named = iter(names)
    for k, step in enumerate(steps):
        numbers = "  ".join(f"{len(chosen[k]):{len(column)}}" for column, chosen in counts.items())
        lines.append(f"{k:4}  {numbers}  {', '.join(next(named) for _ in step)}")
    training = settings.training
    chosen = counts.get(settings.stream.setting, next(iter(counts.values())))
    iterations = sum(step_length(len(i), training.batch, *training.length(k))[1] for k, i in enumerate(chosen))
    cost = f"{iterations:,} iterations of {training.batch} images, crop {training.crop}"
    return [*lines, "", f"cost       {cost}; densecl run --dry-run estimates the time on this machine"]
