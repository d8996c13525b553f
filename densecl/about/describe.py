"""`densecl show` and `densecl cite` as text. Recipes and source files are read; nothing slow is imported."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from densecl.errors import DenseCLError, UnknownNameError
from densecl.records.record import flatten
from densecl.settings.catalogue import backbones, benchmark_recipe, entries, known, strategy_recipes
from densecl.settings.grammar import parse
from densecl.settings.overlay import merge
from densecl.settings.recipe import BenchmarkRecipe, Sections, StrategyRecipe, build_sections
from densecl.settings.source import Argument, read_arguments, read_hyperparameters, read_presets


def show_name(name: str, data: Path | None = None, catalogue: Path | None = None, *, images: bool = False) -> str:
    """Describe a benchmark (with `images` its data set is opened), strategy, plugin or backbone.

    Raises:
        UnknownNameError: no such name. DataError: the data set is not here.
    """
    recipes = strategy_recipes(catalogue)
    if name in recipes:  # of a strategy, and of a plugin with its name
        return "\n\n".join(_strategy(recipes[key]) for key in (name, f"+{name}") if key in recipes)
    if name in backbones():
        file = Path(__file__).parents[1] / "models" / "backbones" / f"{name}.py"
        lines = [f"{name}: {backbones()[name]}", *_arguments(read_arguments(file, "Backbone"))]
        presets = read_presets(file, "Backbone")
        return "\n".join([*lines, *([f"  preset: {', '.join(presets)}"] if presets else [])])
    recipe, split = _benchmark_recipe(name, [*recipes, *backbones()], catalogue)
    return _benchmark(recipe, split, data, images)


def bibtex(names: str, catalogue: Path | None = None) -> str:
    """The BibTeX entries of names joined by + or commas.

    Raises:
        UnknownNameError: no such name. DenseCLError: none of them comes from a paper.
    """
    recipes = strategy_recipes(catalogue)
    bare = re.sub(r"\([^()]*(?:\([^()]*\)[^()]*)*\)", "", names)  # arguments have commas of their own
    calls = [(k > 0, call.name) for part in bare.split(",") for k, call in enumerate(parse(part))]
    cited = [
        known(recipes, n, later) if n in recipes else _benchmark_recipe(n, recipes, catalogue)[0] for later, n in calls
    ]
    texts = dict.fromkeys(recipe.bibtex.strip() for recipe in cited if recipe.bibtex.strip())
    if not texts:
        raise DenseCLError(f"'{names}' comes from no paper")
    return "\n\n".join(texts)


def _benchmark_recipe(name: str, others: Iterable[str], catalogue: Path | None) -> tuple[BenchmarkRecipe, str]:
    """A benchmark's recipe and split; the error names the `others` too."""
    try:
        return benchmark_recipe(name, catalogue)
    except UnknownNameError:
        names = [*others, *(entry.name for entry in entries("benchmarks", catalogue))]
        raise UnknownNameError("name", name, names) from None


def _strategy(recipe: StrategyRecipe) -> str:
    lines = [f"{recipe.name} ({recipe.kind}): {recipe.summary}", f"class      {recipe.class_}"]
    lines += [f"paper      {recipe.paper}"] if recipe.paper else []
    own = {name: repr(value) for name, value in recipe.arguments.items()}
    arguments = read_hyperparameters(recipe.class_, recipe.source.parent)
    lines += _arguments([a._replace(default=own.get(a.name, a.default)) for a in arguments])
    lines += [f"deviates   {text}" for text in recipe.deviations]
    for pattern, overlay in recipe.benchmarks.items():
        own = flatten(overlay.sections()).items()
        lines.append(f"on {pattern:<7} " + ", ".join(f"{key}={json.dumps(value)}" for key, value in own))
    return "\n".join(lines)


def _arguments(arguments: Iterable[Argument]) -> list[str]:
    return [
        f"  {a.name} = {a.default or 'required'}"
        + (f"  ({a.kind})" if a.kind else "")
        + (a.comment and f"  {a.comment}")
        for a in arguments
    ]


def _benchmark(recipe: BenchmarkRecipe, split: str, data: Path | None, images: bool) -> str:
    from densecl.data import check_settings
    from densecl.streams import protocol
    from densecl.streams.groups import without_groups

    tree = merge(recipe.sections(), recipe.split[split].sections() if split in recipe.split else {})
    settings = build_sections(merge(tree, {"stream": {"split": split}}), recipe.own_kinds)
    check_settings(settings.data.name)
    lines = [f"{recipe.family}{split}: {recipe.summary}"]
    lines += [f"paper      {recipe.paper}"] if recipe.paper else []
    lines.append(f"backbone   {recipe.backbone}")
    for section, model in settings._asdict().items():
        values = model.model_dump(mode="json", exclude_none=True, exclude={"tasks"} if section == "stream" else None)
        if values and section != "loader":
            lines.append(f"{section:10} " + ", ".join(f"{key}={_plain(value)}" for key, value in values.items()))
    if settings.stream.kind == "tasks":
        shown = _tasks(settings)
    else:
        stream = without_groups(settings.stream, settings.data.name)
        steps = protocol.ordered(protocol.steps(stream.split, recipe.classes), stream.order)
        unit = "cities" if settings.stream.kind == "domain" else "classes"
        shown = [f"step {k}: {unit} {', '.join(map(str, step))}" for k, step in enumerate(steps)]
        shown += ["", "--images opens the data set: names, images of each step, cost"]
        shown = _images(settings, steps, data) if images else shown
    return "\n".join([*lines, "", *shown, *([f"\n{recipe.notes.strip()}"] if recipe.notes else [])])


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_plain(item)}" for key, item in value.items()) + "}"
    return str(value)


def _tasks(settings: Sections) -> list[str]:
    """One line per task: kind, data, length, and settings of its own."""
    lines = []
    for k, task in enumerate(settings.stream.tasks):
        epochs, iterations = settings.training.length(k)
        length = f"{iterations} iterations" if iterations else f"{epochs} epochs"
        own = task.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name", "kind", "data"})
        shown = "".join(f", {key}={value}" for key, value in own.items())
        whole = " (image-level)" if task.cls.image_level else ""
        lines.append(f"task {k}  {task.name}: {task.kind.replace('_', ' ')}{whole} on {task.data}, {length}{shown}")
    return lines


def _images(settings: Sections, steps: tuple[tuple[int, ...], ...], data: Path | None) -> list[str]:
    """One line per step with names and counts of images, then the cost."""
    from densecl.data import open_dataset
    from densecl.data.class_index import class_index
    from densecl.runner.build import domains_of
    from densecl.streams.protocol import select
    from densecl.training.loader import step_length

    train = open_dataset(settings.data.name, settings.data.split, data)
    if settings.stream.kind == "domain":
        unit, names, counts = "cities", list(train.domains()), {"images": domains_of(train, steps)}
    else:
        unit, names, presence = "classes", train.class_names, class_index(train)
        counts = {way: select(presence, steps, way) for way in ("overlapped", "disjoint", "partitioned")}
    lines = ["step  " + "  ".join(counts) + f"  {unit}"]
    for k, step in enumerate(steps):
        numbers = "  ".join(f"{len(chosen[k]):{len(column)}}" for column, chosen in counts.items())
        lines.append(f"{k:4}  {numbers}  {', '.join(names[number - 1] for number in step)}")
    training = settings.training
    chosen = counts.get(settings.stream.setting, next(iter(counts.values())))
    iterations = sum(
        step_length(len(i), training.batch, *training.length(k), drop_last=training.drop_last)[1]
        for k, i in enumerate(chosen)
    )
    cost = f"{iterations:,} iterations of {training.batch} images, crop {training.crop}"
    return [*lines, "", f"cost       {cost}; densecl run --dry-run estimates the time on this machine"]
