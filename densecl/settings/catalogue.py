"""The catalogue: names -> recipes -> classes, from the checkout or the wheel, then from a user's folder."""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import tomllib
from collections.abc import Callable, Container, Iterator, Mapping
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from densecl.errors import DenseCLError, RecipeError, SettingError, UnknownNameError
from densecl.files import expanded
from densecl.settings.grammar import parse, parse_one
from densecl.settings.splits import FORMS, SPLIT

if TYPE_CHECKING:
    from densecl.settings.recipe import BenchmarkRecipe, Settings, StrategyRecipe

Recipe = TypeVar("Recipe", bound="Settings")


class Entry(NamedTuple):
    """A name in `densecl list`; its recipe is read without validation, which is fast."""

    name: str
    kind: str
    summary: str


def folders(extra: Path | None = None) -> list[Path]:
    """Catalogue folders, each with `benchmarks/` and `strategies/`: ours, then a user's, which must exist."""
    package = Path(__file__).parents[1]
    ours = package.parent if (package.parent / "benchmarks").is_dir() else package / "_catalogue"
    result = [ours]
    if own := extra or os.environ.get("DENSECL_CATALOGUE"):
        folder = expanded(own)
        if not folder.is_dir():
            raise RecipeError(f"the catalogue folder {folder} does not exist", "see --catalogue and DENSECL_CATALOGUE")
        result.append(folder)
    return result


def recipe_files(kind: str, extra: Path | None = None) -> list[Path]:
    """All TOML files of `kind` ('benchmarks' or 'strategies'), ours first."""
    return [path for folder in folders(extra) for path in sorted((folder / kind).glob("*.toml"))]


def published_files(extra: Path | None = None) -> list[Path]:
    """TOML files with numbers of papers: `results/published` of a checkout, `published` of the wheel or a user."""
    return _results("published/*.toml", extra)


def reproductions(extra: Path | None = None) -> dict[str, Path]:
    """Plans that repeat a table of a paper, by name: `PAPER:TABLE` of `results/plans/PAPER/TABLE.toml`, or `plans`."""
    return {f"{path.parent.name}:{path.stem}": path for path in _results("plans/*/*.toml", extra)}


def _results(pattern: str, extra: Path | None) -> list[Path]:
    """Files of the results' folder of a checkout, which the wheel and a user have without the folder around them."""
    places = [folder / part for folder in folders(extra) for part in ("results", "")]
    return [path for place in places for path in sorted(place.glob(pattern))]


def faults(kind: str, extra: Path | None = None) -> dict[Path, str]:
    """Find the faults of a user's recipes, by file; ours are read by the tests."""
    from densecl.settings.recipe import BenchmarkRecipe, StrategyRecipe, read_recipe

    result = {}
    for path in (path for folder in folders(extra)[1:] for path in sorted((folder / kind).glob("*.toml"))):
        try:
            read_recipe(path, BenchmarkRecipe if kind == "benchmarks" else StrategyRecipe)
        except RecipeError as error:
            result[path] = str(error)
    return result


def entries(kind: str, extra: Path | None = None, without: Container[Path] = ()) -> list[Entry]:
    """The names of a kind: benchmarks, strategies or backbones; `without` are files to leave out."""
    if kind == "backbones":
        return [Entry(name, "backbone", summary) for name, summary in backbones().items()]
    result: list[Entry] = []
    for path, content in _contents(kind, extra, without):
        summary = str(content.get("summary", ""))
        if kind == "strategies":
            result.append(Entry(str(content.get("name", path.stem)), str(content.get("kind", "strategy")), summary))
        else:
            family = str(content.get("family", path.stem))
            splits = content.get("splits")
            listed = splits if isinstance(splits, list) else []  # what else is there is told when the recipe is read
            result += [Entry(f"{family}{split}", "benchmark", summary) for split in listed]
    return result


def _contents(kind: str, extra: Path | None, without: Container[Path] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The recipe files of a kind with their TOML, of which nothing is checked; RecipeError if it is none."""
    for path in (path for path in recipe_files(kind, extra) if path not in without):
        try:
            yield path, _parsed(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {error}") from error


@lru_cache(maxsize=512)
def _parsed(text: str) -> dict[str, Any]:
    """The TOML of a recipe, to be read only: every method that is named looks through all recipes."""
    return tomllib.loads(text)


@cache
def backbones() -> dict[str, str]:
    """Our backbones: the name of each file in `models/backbones` and the first line of its docstring."""
    files = sorted(path for path in (Path(__file__).parents[1] / "models" / "backbones").glob("[!_]*.py"))
    docstrings = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in files}
    return {name: text.partition("\n")[0].rstrip(".") for name, text in docstrings.items()}


class Recipes(Mapping[str, Recipe]):
    """Recipes by name, in the order of their files; each is read and checked when it is asked for.

    A plugin whose name a strategy has as well is found as `+name`.
    """

    def __init__(self, kind: str, key: str, model: type[Recipe], extra: Path | None):
        self._model, self._files = model, dict[str, Path]()
        contents = list(_contents(kind, extra))
        strategies = {str(content.get(key)) for _, content in contents if content.get("kind") != "plugin"}
        for path, content in contents:
            name = str(content.get(key, path.stem))
            if content.get("kind") == "plugin" and name in strategies:
                name = f"+{name}"
            if name in self._files:
                raise RecipeError(f"{path} and {self._files[name]} both define '{name}'", "rename one of them")
            self._files[name] = path

    def __getitem__(self, name: str) -> Recipe:
        from densecl.settings.recipe import read_recipe

        return read_recipe(self._files[name], self._model)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def benchmark_recipes(extra: Path | None = None) -> "Mapping[str, BenchmarkRecipe]":
    """All families of benchmarks by name."""
    from densecl.settings.recipe import BenchmarkRecipe

    return Recipes("benchmarks", "family", BenchmarkRecipe, extra)


def strategy_recipes(extra: Path | None = None) -> "Mapping[str, StrategyRecipe]":
    """All strategies and plugins by name."""
    from densecl.settings.recipe import StrategyRecipe

    return Recipes("strategies", "name", StrategyRecipe, extra)


def benchmark_recipe(name: str, extra: Path | None = None) -> tuple["BenchmarkRecipe", str]:
    """The recipe of a benchmark's family and its split: 'voc15-5s' -> (voc, '15-5s')."""
    recipes = benchmark_recipes(extra)
    for family in filter(name.startswith, recipes):
        recipe, rest = recipes[family], name.removeprefix(family)
        if rest in recipe.splits or (recipe.stream.get("kind") != "tasks" and SPLIT.match(rest)):
            return recipe, rest
        if recipe.stream.get("kind") != "tasks" and rest[:1].isdigit():
            first = next(iter(recipe.splits), "15-5")
            near = get_close_matches(rest, recipe.splits, n=1, cutoff=0.8)
            advice = f"did you mean '{family}{near[0]}'? " if near else ""
            advice += f"{FORMS}, such as {family}{first}"
            raise SettingError(f"benchmark '{name}': '{rest}' is not a split", advice)
    names = [entry.name for entry in entries("benchmarks", extra)]
    raise UnknownNameError("benchmark", name, names, "any split of a family works too, such as 15-5, 15-5s or 10-6-4")


def own_kinds(benchmark: str, extra: Path | None = None) -> dict[str, Path]:
    """A user's kinds of task that the recipe of a benchmark names, see `BenchmarkRecipe.own_kinds`."""
    try:
        return benchmark_recipe(benchmark, extra)[0].own_kinds
    except DenseCLError:
        return {}


def known(recipes: "Mapping[str, StrategyRecipe]", name: str, later: bool = False) -> "StrategyRecipe":
    """The recipe of a strategy or plugin; UnknownNameError if there is none.

    Where both have a name, the first word of a method names the strategy and a `later` one the plugin.
    """
    if later and f"+{name}" in recipes:
        return recipes[f"+{name}"]
    if name not in recipes:
        raise UnknownNameError("strategy or plugin", name, recipes, "or file.py:Class for one of your own")
    return recipes[name]


def check_names(
    benchmark: str | None = None, strategy: str | None = None, backbone: str | None = None, extra: Path | None = None
) -> None:
    """Refuse names and files that do not exist, as a run does, but before anything slow is imported."""
    if benchmark is not None:
        benchmark_recipe(parse_one(benchmark, "benchmark").name, extra)
    if strategy is not None:
        recipes = strategy_recipes(extra)
        for call in parse(strategy):
            if file_of(call.name) is None and ":" not in call.name:
                known(recipes, call.name)
    if backbone is not None:
        name = parse_one(backbone, "backbone").name
        if file_of(name) is None and name not in backbones():
            raise UnknownNameError("backbone", name, backbones())


def file_of(reference: str, base: Path | None = None) -> Path | None:
    """The file of `file.py:Class`, which must exist, relative to `base` or the working folder; None for other text."""
    place = reference.rpartition(":")[0]
    if not place.endswith(".py"):
        return None
    path = (base or Path()) / expanded(place)
    if not path.is_file():
        raise DenseCLError(f"there is no file {path.resolve()}", "give the path to a Python file that holds the class")
    return path.resolve()


def load_class(reference: str, base: Path | None = None) -> type:
    """The class behind `package.module:Class` or `file.py:Class` (relative to `base`, else the working folder)."""
    value = load_object(reference, base, lambda value: isinstance(value, type))
    assert isinstance(value, type)
    return value


def load_object(reference: str, base: Path | None = None, fits: Callable[[Any], bool] = callable) -> Any:
    """As `load_class`, a function or class; or whatever `fits`."""
    place, _, name = reference.rpartition(":")
    if not place:
        raise DenseCLError(f"'{reference}' names no class", "write module:Class or file.py:Class")
    path = file_of(reference, base)
    if path is not None:
        module = _module_of_file(path)
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise DenseCLError(f"cannot import {place}: {error}", f"needed by '{reference}'") from error
    value = getattr(module, name, None)
    if not fits(value):
        fitting = {key: value for key, value in vars(module).items() if fits(value) and hasattr(value, "__module__")}
        own = [key for key, value in fitting.items() if f"{value.__module__}.".startswith(f"{module.__name__}.")]
        raise UnknownNameError(f"class in {place}", name, own)
    return value


def source_hash(cls: type) -> str:
    """Hash of a user's class and what its file imports of his, so that an edit is another run; empty for ours."""
    if cls.__module__.startswith(("densecl.", "avalanche.")):
        return ""
    from densecl.settings.source import code_hash, file_of_class, local_modules

    if file_of_class(cls) is None:
        return code_hash(cls)[:12]
    own, *others = local_modules(Path(inspect.getfile(cls)))
    digest = hashlib.sha256(own.read_bytes())
    for path in others:
        digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


@cache
def _module_of_file(path: Path) -> ModuleType:
    """Import a user's file once, under a name of its own; its folder is importable while it loads."""
    name = f"densecl_user_{path.stem}_{abs(hash(path)):x}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # pickling of data loaders and dataclasses look the module up
    sys.path.insert(0, str(path.parent))
    try:
        specification.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        fault = f"{path}{line_of(error, path)} does not import: {type(error).__name__}: {error}"
        raise DenseCLError(" ".join(fault.split())) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def line_of(error: BaseException, path: Path) -> str:
    """':12' for the last line of `path` in the traceback, or of a syntax error in it."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line
