"""A plan of many runs: read from TOML, checked, and expanded into single runs; nothing is resolved here."""

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from densecl.errors import DenseCLError, RecipeError, SettingError
from densecl.settings.faults import first_fault
from densecl.settings.grammar import format_value
from densecl.settings.recipe import Count, Settings

OPTIONS = ("weights", "validation", "precision")
TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)$")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _some(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("the list is empty, which makes no run")
    return value


def _tables(key: str, advice: str) -> BeforeValidator:
    """Refuse all but a list of tables, in words of TOML."""

    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping | Options) for item in value):
            raise ValueError(f"it is a list of tables, [[{key}]]; {advice}")
        return value

    return BeforeValidator(check)


def _minutes(value: Any) -> Any:
    """SLURM's `[days-]hours:minutes:seconds` as minutes, rounded up; a number is minutes."""
    if not isinstance(value, str):
        return value
    match = TIME.match(value)
    if match is None:
        raise ValueError("write minutes, 'hours:minutes:seconds' or 'days-hours:minutes:seconds'")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes + (seconds > 0)


# one value stands for a list of one
Names = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_some)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_listed), AfterValidator(_some)]
Minutes = Annotated[Count, BeforeValidator(_minutes)]


class Options(Settings):
    """Keys that a plan, a block of `settings` and one of `runs` share."""

    set: tuple[str, ...] | dict[str, Any] = ()
    weights: str | None = None
    validation: float | None = None
    precision: str | None = None


class Alternative(Options):
    """A block of `settings`: values that belong together."""

    backbone: str | None = None
    reported: float | None = None  # in percent, as a paper prints it


MORE = "each is a product of further lists, such as strategies and seeds"
ONE_VALUE = 'for one value of all runs write set = ["data.validation=0.2"]'
Alternatives = Annotated[tuple[Alternative, ...], _tables("settings", ONE_VALUE)]


class Runs(Options):
    """A product of lists; None: as in the plan."""

    benchmarks: Names | None = None
    strategies: Names | None = None
    backbones: Names | None = None
    seeds: Seeds | None = None
    grid: dict[str, Any] | None = None
    settings: Annotated[Alternatives, AfterValidator(_some)] | None = None


class LocalSettings(Settings):
    """Processes on this machine."""

    jobs: Count | None = None  # at a time; None: a GPU each, or as many as the cores allow
    threads: Count = 1  # of each; they are part of what decides the bits of a first step


class SlurmSettings(Settings):
    """Resources of each run on SLURM; None: the cluster's default."""

    partition: str | None = None
    time: Minutes = 24 * 60  # of one run; one that needs longer is put back into the queue and goes on
    gpus: Annotated[int, Field(ge=0)] | str = 0  # a number, or with a kind: "a100:1"
    cpus: Count = 1
    mem: str | None = None  # "16G"
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None  # nodes
    array_parallelism: Count = 256  # runs at a time
    timeouts: Annotated[int, Field(ge=0)] = 10  # how often a run may reach its time
    setup: tuple[str, ...] = ()  # shell commands before each run: "module load cuda"
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)  # any further option of sbatch: {nice = 100}
    poll: Annotated[float, Field(gt=0)] = 10.0  # seconds between looks at the queue


class SweepPlan(Runs):
    """A whole plan; see `densecl.sweep` for the form."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "sweep"  # of the folder of logs; the file's, when not given
    summary: str = ""
    paper: str = ""
    data: Path | None = None
    device: str | None = None
    workers: Annotated[int, Field(ge=0)] | None = None
    catalogue: Path | None = None
    engine: Literal["local", "slurm"] = "local"
    runs: Annotated[tuple[Runs, ...], AfterValidator(_some), _tables("runs", MORE)] | None = None
    local: LocalSettings = LocalSettings()
    slurm: SlurmSettings = SlurmSettings()
    source: str = "the plan"


class Request(NamedTuple):
    """One run as a plan asks for it."""

    benchmark: str
    strategy: str
    backbone: str | None
    seed: int
    assignments: tuple[str, ...]
    weights: str | None
    validation: float | None
    precision: str | None
    reported: float | None
    note: str  # tells it apart from runs of the same benchmark, strategy and seed

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.benchmark, self.strategy, f"seed {self.seed}", self.note)))


Plan = TypeVar("Plan", bound=SweepPlan)


def read_plan(plan: Path | str | Mapping[str, Any], model: type[Plan] = SweepPlan) -> Plan:
    """A plan from a TOML file, or from the same as a dictionary; RecipeError names file and key."""
    if isinstance(plan, Mapping):
        content, source = {**plan}, "the plan"
    else:
        path, source = Path(plan), str(plan)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"cannot read the plan {path}: {error}", "see densecl sweep --help") from error
        content = {"name": re.sub(r"[^\w.-]|^[.-]+", "_", path.stem), **content}
    if "source" in content:
        raise RecipeError(f"{source}: unknown key 'source'", "the source of a plan is its file")
    if "small" in content and model is SweepPlan:
        raise RecipeError(f"{source} repeats a table of a paper", "densecl reproduce --list names it; that runs it")
    try:
        return model.model_validate({**content, "source": source})
    except ValidationError as error:
        raise RecipeError(f"{source}: {first_fault(error, model)}") from error


def expand(plan: SweepPlan, last: Sequence[str] = ()) -> list[Request]:
    """All runs of a plan, in its order; at least one. Settings of `last` win over the plan's."""
    return [request._replace(assignments=(*request.assignments, *last)) for _, request in by_block(plan)]


def by_block(plan: SweepPlan) -> list[tuple[Runs, Request]]:
    """All runs with the block that each stands in: the plan itself, then each block of `runs`."""
    blocks: list[tuple[str, Runs]] = [(f"runs.{k}.", block) for k, block in enumerate(plan.runs or ())]
    if plan.strategies is not None or not blocks:
        blocks.insert(0, ("", plan))
    try:
        return [(block, request) for prefix, block in blocks for request in _product(prefix, block, plan)]
    except DenseCLError as error:
        raise RecipeError(f"{plan.source}: {error}") from error


def _product(prefix: str, block: Runs, plan: SweepPlan) -> Iterator[Request]:
    """The runs of one block; `prefix` stands before its keys in messages."""
    lists = {key: getattr(block, key) or getattr(plan, key) for key in ("benchmarks", "strategies")}
    for key, value in lists.items():
        if value is None:
            raise SettingError(f"the key '{prefix}{key}' is missing", f"write {key} = [...]")
    backbones = block.backbones or plan.backbones or (None,)
    seeds = block.seeds or plan.seeds or (0,)
    general = _assignments(plan.set, "set")
    of_block = () if block is plan else _assignments(block.set, f"{prefix}set")
    lines = [()] if block.grid is None else _grid_lines(block.grid, f"{prefix}grid")
    for index, settings in enumerate(block.settings or (Alternative(),)):
        own = (*of_block, *_assignments(settings.set, f"{prefix}settings.{index}.set"))
        options = {
            key: next((value for level in (settings, block, plan) if (value := getattr(level, key)) is not None), None)
            for key in OPTIONS
        }
        differing = [f"{key}={value}" for key in OPTIONS if (value := getattr(settings, key)) is not None]
        for benchmark, strategy, named, line, seed in itertools.product(*lists.values(), backbones, lines, seeds):
            backbone = settings.backbone or named
            noted = [backbone] if backbone and (settings.backbone or len(backbones) > 1) else []
            yield Request(
                benchmark,
                strategy,
                backbone,
                seed,
                (*general, *own, *line),
                **options,
                reported=settings.reported,
                note=" ".join((*noted, *differing, *own, *line)),
            )


def _assignments(values: tuple[str, ...] | Mapping[str, Any], key: str) -> tuple[str, ...]:
    """`set` as a list of texts, also where it was a table."""
    if not isinstance(values, Mapping):
        return values
    return tuple(f"{name}={_text(value, f'{key}.{name}')}" for name, value in _leaves(values))


def _grid_lines(grid: Mapping[str, Any], key: str) -> list[tuple[str, ...]]:
    """Every choice of one value of each axis, as assignments; the last axis changes fastest."""
    if not grid:
        raise SettingError(f"'{key}' is empty", "name an axis, such as training.lr = [0.01, 0.001], or leave it out")
    axes = []
    for name, values in _leaves(grid):
        if not isinstance(values, list | tuple):
            raise SettingError(f"'{key}.{name}' cannot be {values!r}", f"an axis is a list: {name} = [{values!r}, ...]")
        if not values:
            raise SettingError(f"'{key}.{name}' is empty, which makes no run", "give it a value or leave it out")
        axes.append([f"{name}={_text(value, f'{key}.{name}')}" for value in values])
    return list(itertools.product(*axes))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any, key: str) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, list | tuple):
        return f"({', '.join(_text(item, key) for item in value)}{',' if len(value) == 1 else ''})"
    if not isinstance(value, bool | int | float | str):
        raise SettingError(f"'{key}' cannot be {value}", "write numbers, texts, true, false or lists of them")
    return format_value(value)
