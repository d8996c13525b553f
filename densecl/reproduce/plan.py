"""The plan of a paper's table: read, made small, and its runs paired with the published rows that they repeat."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from densecl.errors import RecipeError, SpecError, UnknownNameError
from densecl.records.layout import method_name
from densecl.records.published import Reported, canonical, read_published
from densecl.records.record import flatten, plain
from densecl.settings.catalogue import published_files, reproductions
from densecl.settings.grammar import parse, parse_assignment, parse_one
from densecl.settings.recipe import Settings
from densecl.sweep.planfile import Request, Runs, SweepPlan, by_block, read_plan


class Block(Runs):
    """Runs, and the published rows that they repeat."""

    repeats: dict[str, Any] = Field(default_factory=dict)  # values of those rows
    small: Runs = Runs()  # keys that differ under --small


class NotRepeated(Settings):
    """Something that the paper reports and no run repeats."""

    rows: dict[str, Any] = Field(default_factory=dict)  # of published rows; empty: not among these
    why: str


class TablePlan(SweepPlan):
    """A plan of `densecl sweep` that repeats a table of a paper; see `densecl.reproduce` for the form."""

    published: str = ""
    tables: tuple[str, ...] = ()
    repeats: dict[str, Any] = Field(default_factory=dict)
    small: Runs = Runs()
    not_repeated: tuple[NotRepeated, ...] = ()
    runs: tuple[Block, ...] | None = None

    def made_small(self) -> Self:
        """The plan under `--small`."""
        blocks = self.runs and tuple(block.model_copy(update=_given(block.small)) for block in self.runs)
        return self.model_copy(update={**_given(self.small), "runs": blocks})

    def of_seeds(self, seeds: Sequence[int]) -> Self:
        """The plan with other seeds."""
        blocks = self.runs and tuple(block.model_copy(update={"seeds": None}) for block in self.runs)
        return self.model_copy(update={"seeds": tuple(seeds), "runs": blocks})


@dataclass(frozen=True)
class Line:
    """A row of the repeated table."""

    theirs: Reported | None  # None: a run beside those of the paper
    runs: tuple[int, ...] = ()  # places in the expanded plan, one a seed
    name: str = ""
    declared: frozenset[str] = frozenset()  # keys of the published row that the plan says its runs have
    why: str = ""  # it is not repeated


def read_table(name: str, catalogue: Path | None = None) -> TablePlan:
    """The plan of `PAPER:TABLE`; UnknownNameError if there is none, RecipeError if its file is at fault."""
    known = reproductions(catalogue)
    if name not in known:
        raise UnknownNameError("table of a paper", name, known)
    plan = read_plan(known[name], TablePlan)
    return plan.model_copy(update={"name": name.replace(":", "-"), "catalogue": catalogue})


def published_rows(plan: TablePlan, catalogue: Path | None = None) -> list[Reported]:
    """The published rows of a plan's tables, in their order."""
    if not plan.tables:
        return []
    files = {path.stem: path for path in published_files(catalogue)}
    if plan.published not in files:
        raise RecipeError(f"{plan.source}: {UnknownNameError('file of published numbers', plan.published, files)}")
    rows = read_published(files[plan.published])
    for table in plan.tables:
        if table not in (names := {row.table for row in rows}):
            raise RecipeError(f"{plan.source}: {UnknownNameError('table', table, names)}")
    return [row for table in plan.tables for row in rows if row.table == table]


def lines(plan: TablePlan, chosen: TablePlan, reported: Sequence[Reported]) -> list[Line]:
    """The rows of the table: published ones with the runs that repeat them, then runs without a published row.

    `chosen` is the plan as it is carried out, whole or small; what a run repeats is read of the whole one.

    Raises:
        RecipeError: a published row has no run or several, or the small plan has other runs than the whole one.
    """
    whole, own = _groups(plan), _groups(chosen)
    if len(whole) != len(own):
        raise RecipeError(
            f"{plan.source}: 'small' makes {len(own)} rows, and the plan {len(whole)}",
            "give each list of [small] and of 'small.' as many names as the plan has",
        )
    result, used = [], set()
    for row in reported:
        found = [k for k, (repeats, request, _) in enumerate(whole) if _repeats(request, repeats, row)]
        why = next((each.why for each in plan.not_repeated if each.rows and _has(row, each.rows)), "")
        if len(found) + bool(why) != 1:
            count = "several rows of the plan repeat" if found else "no run repeats"
            raise RecipeError(f"{plan.source}: {count} {row.label}, {row.about}", "see 'repeats' and 'not_repeated'")
        used.update(found)
        runs = own[found[0]][2] if found else ()
        declared = frozenset(whole[found[0]][0]) if found else frozenset()
        result.append(Line(row, runs, declared=declared, why=why))
    rest = [k for k in range(len(own)) if k not in used]
    return result + [Line(None, own[k][2], _name(own[k][1].strategy)) for k in rest]


def _name(strategy: str) -> str:
    """A strategy with its hyper-parameters, and its plugins without theirs."""
    main, *plugins = parse(strategy)
    return "+".join((str(main), *(call.name for call in plugins)))


def _groups(plan: TablePlan) -> list[tuple[Mapping[str, Any], Request, tuple[int, ...]]]:
    """List of each row what it repeats, its run with the first seed, and the places of the runs of all seeds."""
    pairs = list(enumerate(by_block(plan)))
    result = []
    for _, group in itertools.groupby(pairs, key=lambda pair: (id(pair[1][0]), pair[1][1]._replace(seed=0))):
        places, members = zip(*group, strict=True)
        block, request = members[0]
        assert isinstance(block, Block | TablePlan)
        result.append((block.repeats, request, places))
    return result


def _repeats(request: Request, repeats: Mapping[str, Any], row: Reported) -> bool:
    """True if method, split, backbone, hyper-parameters and settings agree as far as both name them."""
    if method_name(request.strategy) != row.method or canonical(request.benchmark)[1] != canonical(row.benchmark)[1]:
        return False
    if request.backbone and row.backbone and not _same_network(request.backbone, row.backbone):
        return False
    arguments, stated = parse(request.strategy)[0].arguments, flatten(row.settings)
    assigned = dict(map(parse_assignment, request.assignments))
    settings = all(plain(assigned[key]) == plain(stated[key]) for key in assigned.keys() & stated.keys())
    values = all(plain(arguments.get(key)) == plain(value) for key, value in row.strategy.items())
    return settings and values and _has(row, repeats)


def _same_network(ours: str, theirs: str) -> bool:
    """True if our backbone has the name and all arguments of theirs; names of papers may be no backbone of ours."""
    try:
        own, other = parse_one(ours, "backbone"), parse_one(theirs, "backbone")
    except SpecError:
        return ours == theirs
    return own.name == other.name and other.arguments.items() <= own.arguments.items()


def _has(row: Reported, values: Mapping[str, Any]) -> bool:
    return all(getattr(row, key, None) == value for key, value in values.items())


def _given(runs: Runs) -> dict[str, Any]:
    return {key: getattr(runs, key) for key in runs.model_fields_set}
