"""`--layout field`: every method on every benchmark, with what it costs and knows, and what papers report of it."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from densecl.records.layout import UPPER_BOUND, clean, main_name
from densecl.records.published import Reported, canonical
from densecl.records.record import Record, flatten
from densecl.tables.columns import Cell
from densecl.tables.honest import HEADINGS, Examined, examine, texts
from densecl.tables.listing import Line, Listing
from densecl.tables.paper import Names
from densecl.tables.table import Table

PAPERS = ("15-5", "15-1", "10-1")  # of VOC, overlapped
COSTS = ("step 0", "forgetting", "parameters", "kept MiB", "time")
CHOSEN = ("strategy_values", "plugins")  # settings that tell rows of one strategy apart
Key = tuple[str, str, str]  # strategy, note where it tells rows apart, backbone


def field(records: Sequence[Record], reported: Sequence[Reported], catalogue: Path | None = None) -> Listing:
    """One line a method, the best of the benchmark with most rows and steps first; its costs are of that benchmark.

    Beside them stands the mIoU of all classes on VOC that papers report. A number that counts background is
    preferred, as ours do, and then one from the method's own paper.
    """
    tables = sorted(examine(records), key=lambda pair: (-len(pair[1]), -_steps(pair[0]), pair[0].benchmark))
    main, rows = tables[0]
    name_of = _keys([found for _, found in tables])
    means = [{name_of[id(row)]: table.cell(row.row, "all") for row in found} for table, found in tables]
    costs = {name_of[id(row)]: row for row in rows}
    keys = list(dict.fromkeys(key for own in means for key in own))
    keys.sort(key=lambda key: (main_name(key[0]) == UPPER_BOUND, -(means[0].get(key, Cell(None)).mean or 0)))
    names, several = Names(catalogue), len({key[2] for key in keys}) > 1
    known = {(key, split): value for key in keys for split in PAPERS if (value := paper_value(key[0], split, reported))}
    splits = [split for split in PAPERS if any((key, split) in known for key in keys)]
    lines = []
    for key in keys:
        cost = costs.get(key)
        scores = (_score(own.get(key)) for own in means)
        papers = (known.get((key, split), "-") for split in splits)
        cells = (_name(key, names, several), *scores, *_costs(cost), *papers)
        lines.append(Line(cells, (", ".join(cost.extras) if cost else "",)))
    remarks = (
        "mIoU of all classes in %, mean ± standard deviation over seeds",
        f"{', '.join(COSTS)}: of {main.benchmark}",
        *((f"papers: VOC {', '.join(splits)}, overlapped, as their authors report",) if splits else ()),
        *dict.fromkeys(note for table, _ in tables for note in table.notes if note.startswith(("scored on", "mixed"))),
    )
    headings = ("method", *(table.benchmark for table, _ in tables), *COSTS, *(f"paper {split}" for split in splits))
    return Listing("Methods of the field", headings, tuple(lines), 1, ("had besides",), remarks)


def paper_value(strategy: str, split: str, reported: Sequence[Reported]) -> str:
    """The mIoU of all classes that papers report of a method on VOC; empty where none does."""
    own = strategy.rpartition("+")[2]  # a plugin's paper is that of the whole
    found = [
        (row.grouping != "with-bg", row.file.stem != own, index, value)
        for index, row in enumerate(reported)
        if row.method == strategy
        and canonical(row.benchmark) == ("voc", split)
        and row.setting in (None, "overlapped")
        and not row.variant
        and (value := row.numbers.get("all")) is not None
    ]
    return f"{min(found)[-1]:.1f}" if found else ""


def _steps(table: Table) -> int:
    return len(table.layout.steps) if table.layout else 0


def _keys(tables: Sequence[Sequence[Examined]]) -> dict[int, Key]:
    """The names of all rows, by identity; hyper-parameters that tell rows of one strategy apart are part of them."""
    rows = [row for found in tables for row in found]
    values = {id(row): flatten({key: row.row.runs[0].settings.get(key, {}) for key in CHOSEN}) for row in rows}
    kinds: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        for key, value in values[id(row)].items():
            kinds.setdefault(row.row.strategy, {}).setdefault(key, set()).add(str(value))

    def note(row: Examined) -> str:
        differing = [key for key, seen in kinds.get(row.row.strategy, {}).items() if len(seen) > 1]
        own = values[id(row)]
        return ", ".join(f"{key.rpartition('.')[2]}={clean(str(own[key]))}" for key in differing if key in own)

    return {id(row): (row.row.strategy, note(row), row.row.backbone) for row in rows}


def _name(key: Key, names: Names, several: bool) -> str:
    strategy, note, backbone = key
    return " ".join(filter(None, (names.display(strategy), note, f"({backbone})" if several else "")))


def _score(cell: Cell | None) -> str:
    if cell is None or cell.mean is None:
        return "-"
    return f"{100 * cell.mean:.1f}" + (f" ±{100 * cell.std:.1f}" if cell.std is not None else "")


def _costs(row: Examined | None) -> tuple[str, ...]:
    """The texts under `COSTS`."""
    if row is None:
        return ("-",) * len(COSTS)
    told = dict(zip(HEADINGS, texts(row), strict=True))
    counts = [run.steps[-1].parameters for run in row.row.runs if run.steps]
    known = [count for count in counts if count is not None]
    told |= {"parameters": f"{statistics.fmean(known):,.0f}" if known else "-"}
    told |= {"forgetting": told["forgetting"].removeprefix("+")}
    return tuple(told[heading] for heading in COSTS)
