"""Markdown of what recipes, classes and records say, so that no page has to repeat it. Nothing here knows Sphinx."""

import ast
import inspect
import io
import math
import re
import textwrap
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

from densecl.cli import COMMANDS, app
from densecl.models import backbone_in
from densecl.records.published import Reported, canonical, read_all
from densecl.records.record import flatten
from densecl.settings.arguments import hyperparameters
from densecl.settings.catalogue import backbones as packaged
from densecl.settings.catalogue import load_class, published_files, recipe_files, strategy_recipes
from densecl.settings.overlay import merge
from densecl.settings.recipe import SECTIONS, BenchmarkRecipe, StrategyRecipe, build_sections, read_recipe
from densecl.strategies.base import Plugin, Strategy
from densecl.streams import golden
from densecl.tables.compare import table
from densecl.tables.forms.markdown import escape
from densecl.tables.forms.text import render
from densecl.tables.table import Table, told
from densecl.training.loader import step_length
from densecl.training.loop import Loop

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
HEADINGS = ("method", "benchmark", "setting", "base", "added", "all", "background", "from")
BACKGROUND = {"fg-only": "nowhere", "with-bg": "in base and all", "mixed": "in all", None: "not stated"}


def strategies() -> str:
    """A section for each strategy, then for each plugin: paper, deviations, hyper-parameters, numbers, BibTeX."""
    recipes = strategy_recipes()
    ordered = sorted(recipes, key=lambda key: (recipes[key].kind == "plugin", key))
    return "\n".join(strategy(recipes[key], _heading(key)) for key in ordered)


def _heading(key: str) -> str:
    """The heading of a recipe: its name, of a plugin that has that of a strategy `NAME-plugin`."""
    return f"{key[1:]}-plugin" if key.startswith("+") else key


def strategy(recipe: StrategyRecipe, heading: str) -> str:
    """The section of one strategy or plugin."""
    kind = "strategy" if recipe.kind == "strategy" else f"plugin: `mib+{recipe.name}`"
    lines = [f"## {heading}", "", f"{_sentence(recipe.summary)} ({kind})", ""]
    if recipe.paper:
        lines += [f"Paper: {recipe.paper}.", ""]
    lines += [f"Class: `{recipe.class_}`", ""]
    cls = load_class(recipe.class_, recipe.source.parent)
    if issubclass(cls, Strategy) and cls.oracle:
        lines += [f"It {told(cls.oracle)}, so tables do not rank it with those that are not.", ""]
    if issubclass(cls, Strategy):
        lines += [f"Learns: {_streams(cls)}.", ""]
    lines += [_hyperparameters(cls, recipe), ""]
    if recipe.deviations:
        lines += ["Where it deviates from the paper:", "", *(f"- {escape(text)}" for text in recipe.deviations), ""]
    if recipe.benchmarks:
        lines += ["What a benchmark changes:", ""]
        for pattern, overlay in recipe.benchmarks.items():
            for section, values in overlay.sections().items():
                shown = ", ".join(f"`{section}.{key}={_plain(value)}`" for key, value in values.items())
                lines.append(f"- `{pattern}`: {shown}")
        lines.append("")
    if recipe.networks:
        shown = "; ".join(f"`{network}` on `{pattern}`" for pattern, network in recipe.networks.items())
        lines += [f"Network where none is named: {shown}.", ""]
    lines += [_reported(recipe.name), _measured(recipe.name)]
    if recipe.bibtex:
        lines += ["```bibtex", recipe.bibtex.strip(), "```", ""]
    return "\n".join(lines)


def benchmarks() -> str:
    """A section for each family of benchmarks: data, steps, recipe."""
    return "\n".join(benchmark(read_recipe(path, BenchmarkRecipe)) for path in recipe_files("benchmarks"))


def benchmark(recipe: BenchmarkRecipe) -> str:
    """The section of one family."""
    names = ", ".join(f"`{recipe.family}{split}`" for split in recipe.splits)
    lines = [f"## {recipe.source.stem}", "", _sentence(recipe.summary), "", f"Benchmarks: {names}.", ""]
    if recipe.paper:
        lines += [f"Paper: {recipe.paper}.", ""]
    lines += [f"Backbone: `{recipe.backbone}`", ""]
    own = _sections(recipe.sections())
    if own:
        lines += ["What differs from the [defaults](benchmark.md#settings):", "", *own, ""]
    parts = [("On", recipe.split), ("With the backbone", recipe.backbones)]
    for word, group in parts:
        for key, overlay in group.items():
            tasks = overlay.sections().get("stream", {}).get("tasks", ())
            name = f"{recipe.family}{key}" if word == "On" else key
            if tasks:
                shown = ", ".join(f"{task['name']} ({task['kind'].replace('_', ' ')})" for task in tasks)
                lines += [f"`{name}`: {shown}.", ""]
            if changed := _sections(overlay.sections()):
                lines += [f"{word} `{name}`:", "", *changed, ""]
    if recipe.notes:
        lines += [" ".join(recipe.notes.split()), ""]
    if recipe.bibtex:
        lines += ["```bibtex", recipe.bibtex.strip(), "```", ""]
    return "\n".join(lines)


def backbones() -> str:
    """A section for each backbone: what it is, and its arguments with their defaults."""
    sections = []
    for name, summary in packaged().items():
        cls = backbone_in(name)
        rows = [
            [f"`{p.name}`", f"`{_plain(p.default)}`", f"`{_annotation(p.annotation)}`"]
            for p in inspect.signature(cls).parameters.values()
        ]
        about = _escape_docstring(inspect.getdoc(cls) or "")
        sections += [f"## {name}", "", _sentence(summary), "", about, "", *_grid(("argument", "default", "type"), rows)]
        sections.append("")
    return "\n".join(sections)


def counts() -> str:
    """The published numbers of training images of each step of Pascal VOC, which `densecl data verify` compares."""
    rows = [
        [f"`{split}`", setting, ", ".join(f"{n:,}" for n in images)]
        for split, settings in golden.TRAIN.items()
        for setting, images in settings.items()
    ]
    return "\n".join(_grid(("split", "setting", "training images of each step"), rows))


def records() -> str:
    """A table for each folder of committed records, mean and standard deviation over seeds."""
    lines = []
    for folder, tables in _measured_tables().items():
        lines += [f"## {Path(folder).name}", "", f"`densecl table {folder}`", "", _printed(tables)]
    return "\n".join(lines)


def published(label: str, method: str, benchmark: str) -> str:
    """The rows of a paper's table (`MiB, Table 1`) about a method on a benchmark.

    Raises:
        ValueError: there are none.
    """
    wanted = (label, method, benchmark)
    rows = [row for row in read_all(published_files()) if (row.label, row.method, row.benchmark) == wanted]
    if not rows:
        raise ValueError(f"nothing published is called {wanted}")
    return _numbers(rows)


def settings() -> str:
    """All sections of settings with their defaults, and what the code says of them."""
    lines = []
    for section, model in SECTIONS.items():
        said = comments(model)
        lines += [f"### {section}", "", _sentence((inspect.getdoc(model) or "").rstrip(".")), ""]
        rows = []
        for name, field in model.model_fields.items():
            default = field.default
            if isinstance(default, BaseModel):
                inner, within = type(default), comments(type(default))
                rows += [
                    [
                        f"`{name}.{key}`",
                        f"`{_plain(getattr(default, key))}`",
                        escape(within.get(key, said.get(name, ""))),
                    ]
                    for key in inner.model_fields
                ]
            else:
                rows.append([f"`{name}`", f"`{_plain(default)}`", escape(said.get(name, ""))])
        lines += [*_grid(("key", "default", ""), rows), ""]
    return "\n".join(lines)


def lengths() -> str:
    """Images and iterations of each step of the benchmarks on Pascal VOC, from the published counts."""
    rows = []
    for path in recipe_files("benchmarks"):
        recipe = read_recipe(path, BenchmarkRecipe)
        if recipe.data.get("name") != "voc" or recipe.stream.get("kind") == "tasks":
            continue
        for split in recipe.splits:
            images = golden.TRAIN.get(canonical(recipe.family + split)[1], {}).get("overlapped")
            if images is None:
                continue
            overlays = [recipe.sections(), recipe.split[split].sections() if split in recipe.split else {}]
            training = build_sections(merge(*overlays)).training
            steps = [step_length(n, training.batch, *training.length(k)) for k, n in enumerate(images)]
            each = [iterations for _, iterations in steps]
            shown = ", ".join(f"{n:,}" for n in each)
            rows.append([f"`{recipe.family}{split}`", str(training.batch), shown, f"{sum(each):,}"])
    return "\n".join(_grid(("benchmark", "batch", "iterations of each step", "all"), rows, right=(1, 3)))


def commands() -> str:
    """A section for each command, and for each part of one: what it does, and its options."""
    return "\n".join(
        line for name in COMMANDS for line in _command(name, typer.main.get_command(app).get_command(None, name))
    )


def _command(name: str, command: Any) -> Iterator[str]:
    """The section of a command; commands within it follow."""
    said = inspect.cleandoc(command.help or "").split("\n\n")
    examples = [line for line in said if line.startswith("densecl ")]
    yield from (f"## densecl {name}", "", *(f"{' '.join(part.split())}\n" for part in said if part not in examples))
    if examples:
        yield from ("```", *examples, "```", "")
    rows = [
        [
            ", ".join(f"`{text}`" for text in option.opts)
            if option.opts[0].startswith("-")
            else f"`{option.name.upper()}`",
            escape(getattr(option, "help", None) or ""),
        ]
        for option in command.params
        if option.name not in ("install_completion", "show_completion", "help")
    ]
    if rows:
        yield from (*_grid(("option", ""), rows), "")
    for part, inner in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {part}", inner)


def anchors(kind: str) -> list[str]:
    """Anchors of the sections that `kind` makes."""
    if kind == "strategies":
        return list(map(_heading, strategy_recipes()))
    if kind == "backbones":
        return list(packaged())
    return [path.stem for path in recipe_files("benchmarks")] if kind == "benchmarks" else []


KINDS = {f.__name__: f for f in (strategies, benchmarks, backbones, settings, counts, lengths, records, commands)}


# ---- parts


def _streams(cls: type[Strategy]) -> str:
    words = {"classes": "streams of classes", "tasks": "sequences of tasks"}
    tasks = ", ".join(kind.replace("_", " ") for kind in sorted(cls.kinds))
    return f"{' and '.join(words[kind] for kind in sorted(cls.streams))}; tasks: {tasks}"


def _hyperparameters(cls: type, recipe: StrategyRecipe) -> str:
    if not issubclass(cls, Strategy | Plugin):
        rows = [
            [f"`{p.name}`", f"`{_plain(recipe.arguments.get(p.name, p.default))}`", "", ""]
            for p in inspect.signature(cls).parameters.values()
        ]
    else:
        found = hyperparameters(cls, Strategy if issubclass(cls, Strategy) else Plugin)
        said = comments(cls)
        rows = [
            [f"`{key}`", f"`{_plain(default)}`", f"`{_annotation(kind)}`", escape(said.get(key, ""))]
            for key, (kind, default) in found.items()
        ]
    if not rows:
        return "It has no hyper-parameters of its own."
    return "\n".join(_grid(("hyper-parameter", "default", "type", ""), rows))


def comments(cls: type) -> dict[str, str]:
    """Comments behind the annotated attributes of a class and its bases: `weight: float = 1.0  # of the penalty`."""
    result: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("densecl.") or base in (Strategy, Plugin, Loop):
            continue
        source = textwrap.dedent(inspect.getsource(base))
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        behind = {
            t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT and t.line.strip()[0] != "#"
        }
        (node,) = ast.parse(source).body
        assert isinstance(node, ast.ClassDef)
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                texts = [behind[k] for k in range(line.lineno, (line.end_lineno or line.lineno) + 1) if k in behind]
                result |= {line.target.id: " ".join(texts)} if texts else {}
    return result


def _annotation(kind: Any) -> str:
    """`int` for int and Annotated[int, ...], the choices of a Literal, `a or b` of a union."""
    if get_origin(kind) is Annotated:
        return _annotation(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if isinstance(kind, type) and get_origin(kind) is None:
        return "none" if kind is type(None) else kind.__name__
    if get_args(kind) and (str(kind).startswith("typing.") or " | " in str(kind)):
        return " or ".join(_annotation(inner) for inner in get_args(kind))
    return str(kind).replace("typing.", "")


def _reported(name: str) -> str:
    rows = [row for row in read_all(published_files()) if row.method == name and row.values is not None]
    if not rows:
        return ""
    return "\n".join(["What papers report, mean IoU in percent after the last step:", "", _numbers(rows), ""])


def _numbers(rows: Iterable[Reported]) -> str:
    """Published values as a table; `c` marks what was computed from others of the source, `m` what is from memory."""
    lines = []
    for row in rows:
        values = row.values
        if values is None:
            continue
        marks = {"read": "", "computed": " c", "from memory": " m"}
        places = max(0, round(-math.log10(row.rounding)))
        cells = [
            "" if (value := getattr(values, part)) is None else f"{value:.{places}f}{marks[row.sure(part)]}"
            for part in ("base", "added", "all")
        ]
        variant = f" ({row.variant})" if row.variant else ""
        method = f"{row.method}{variant}"
        lines.append([method, row.benchmark, row.setting or "", *cells, BACKGROUND[row.grouping], escape(row.label)])
    return "\n".join(_grid(HEADINGS, lines, right=range(3, 6)))


def _measured(name: str) -> str:
    """Rows of committed records whose method has this part."""
    lines = []
    for folder, tables in _measured_tables().items():
        own = [replace(one, rows=tuple(r for r in one.rows if name in r.strategy.split("+"))) for one in tables]
        if shown := [one for one in own if one.rows]:
            lines += [f"Measured here, rows of `densecl table {folder}`:", "", _printed(shown)]
    return "\n".join(lines)


@cache
def _measured_tables() -> dict[str, list[Table]]:
    """The tables of each folder of committed records, by the folder's path in the project."""
    folders = [*sorted(path for path in (RESULTS / "embedded").iterdir() if path.is_dir()), RESULTS / "real"]
    return {folder.relative_to(ROOT).as_posix(): table(folder) for folder in folders}


def _printed(tables: list[Table]) -> str:
    return without_heading(render(tables, "markdown"))


def without_heading(text: str) -> str:
    """A table of `densecl table --format markdown` with its heading as a line of text."""
    return re.sub(r"^### (.*)$", r"\1, mean IoU in percent:", text, flags=re.MULTILINE)


def _sections(sections: Mapping[str, Any]) -> list[str]:
    """`training.lr = 0.01` as a line each; the tasks of a sequence are named apart."""
    return [
        f"- `{key} = {_plain(value)}`"
        for section in SECTIONS
        for key, value in flatten(sections.get(section, {}), f"{section}.").items()
        if key != "stream.tasks"
    ]


def _plain(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    return "none" if value is None or isinstance(value, BaseModel) else str(value)


def _sentence(text: str) -> str:
    text = escape(text)
    return f"{text[:1].upper()}{text[1:]}."


def _escape_docstring(text: str) -> str:
    """A docstring's prose, without its sections of arguments and attributes."""
    return re.split(r"\n(?:Args|Attributes|Returns|Raises):\n", text)[0].strip()


def _grid(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """A pipe table."""
    rule = ["--:" if k in set(right) else "---" for k in range(len(headings))]
    cells = ([cell.replace("|", "\\|") if "\\|" not in cell else cell for cell in row] for row in rows)
    return [f"| {' | '.join(row)} |" for row in (headings, rule, *cells)]
