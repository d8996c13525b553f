"""Names that the shell offers: benchmarks, strategies and plugins, backbones, data sets, runs.

Called by typer when <TAB> is pressed, so fast and silent: recipes are not validated, torch is not imported, and a name
that cannot be read is not offered.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

Offer = list[tuple[str, str]]  # a name and what it is
KINDS = ("benchmarks", "strategies", "backbones", "data", "groupings")  # of `densecl list`
SKIPPED = {"weights", "checkpoints", "masks", "pictures", "tensorboard", "wandb"}  # folders of a run
DEPTH = 6  # folders below the one that is typed
MOST = 500  # runs


def benchmarks(context: typer.Context, incomplete: str) -> Offer:
    """Benchmarks."""
    return _matching(_entries("benchmarks", context), incomplete)


def strategies(context: typer.Context, incomplete: str) -> Offer:
    """Strategies; after a `+` the plugins that are not named yet: `mib+deep` becomes `mib+deepinversion`."""
    cut = _last_plus(incomplete)
    entries = _entries("strategies", context)
    if cut < 0:
        return _matching([(name, text) for name, text, kind in entries if kind != "plugin"], incomplete)
    before = incomplete[: cut + 1]
    named = set(re.findall(r"[\w.-]+", re.sub(r"\([^)]*\)", "", before)))
    plugins = [(before + name, text) for name, text, kind in entries if kind == "plugin" and name not in named]
    return _matching(plugins, incomplete)


def backbones(context: typer.Context, incomplete: str) -> Offer:
    """Backbones."""
    return _matching(_entries("backbones", context), incomplete)


def names(context: typer.Context, incomplete: str) -> Offer:
    """Names of any kind, for `densecl show`."""
    return _matching([entry for kind in KINDS[:3] for entry in _entries(kind, context)], incomplete)


def kinds(incomplete: str) -> list[str]:
    """Kinds of names, for `densecl list`."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def groupings(incomplete: str) -> Offer:
    """Groupings of tables."""
    from densecl.tables.groupings import groupings

    return _matching([(grouping.name, grouping.summary) for grouping in groupings()], incomplete)


def paper_tables(context: typer.Context, incomplete: str) -> list[str]:
    """Tables of papers, for `densecl reproduce`."""
    from densecl.settings.catalogue import reproductions

    return [name for name in sorted(reproductions(context.params.get("catalogue"))) if name.startswith(incomplete)]


def data_sets(incomplete: str) -> Offer:
    """Data sets."""
    from densecl.data import entries

    return _matching([(entry.name, entry.summary) for entry in entries()], incomplete)


def runs(incomplete: str) -> list[str]:
    """Folders of runs below the typed folder (default `results/`); without runs, the folders that begin so."""
    start = incomplete or ("results/" if Path("results").is_dir() else "")
    parent, _ = os.path.split(start)
    base = Path(parent or ".").expanduser()
    beginnings = [place for place in _folders(base) if _typed(parent, base, place).startswith(start)]
    below = itertools.islice((run for place in beginnings for run in _runs(place, DEPTH)), MOST)
    offered = [_typed(parent, base, run) for run in below]
    return offered or [_typed(parent, base, place) + "/" for place in beginnings]


def _entries(kind: str, context: typer.Context) -> list[tuple[str, str, str]]:
    """(name, summary, kind) of all names; none where a recipe cannot be read."""
    from densecl.errors import DenseCLError
    from densecl.settings.catalogue import entries

    try:
        return [(entry.name, entry.summary, entry.kind) for entry in entries(kind, context.params.get("catalogue"))]
    except DenseCLError:
        return []


def _matching(offered: Iterable[tuple[str, ...]], incomplete: str) -> Offer:
    return [(each[0], each[1]) for each in offered if each[0].startswith(incomplete)]


def _last_plus(text: str) -> int:
    """The place of the last `+` outside parentheses; -1 if there is none."""
    depth, last = 0, -1
    for place, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        last = place if letter == "+" and depth == 0 else last
    return last


def _folders(base: Path) -> list[Path]:
    """The folders in a folder, without hidden ones."""
    try:
        with os.scandir(base) as entries:
            return sorted(Path(each) for each in entries if each.is_dir() and not each.name.startswith("."))
    except OSError:
        return []


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    """Folders with a record, the given one included."""
    if (folder / "result.json").is_file():
        yield folder
    elif depth:
        for each in _folders(folder):
            if each.name not in SKIPPED:
                yield from _runs(each, depth - 1)


def _typed(parent: str, base: Path, place: Path) -> str:
    """A folder below `base` as it is typed behind `parent`."""
    return os.path.join(parent, str(place.relative_to(base)))  # noqa: PTH118 (keeps ~ and ./ as typed)
