"""The page: all sections of all benchmarks, filled into one HTML file that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from densecl import __version__
from densecl.records.published import Reported
from densecl.records.record import Found
from densecl.report import answer, galleries, grids, pictures, referee, sections, strips
from densecl.report.album import Album, Fault
from densecl.report.comparison import compare
from densecl.report.gather import Benchmark, benchmarks
from densecl.report.masks import MasksOf, masks
from densecl.report.origins import provenance
from densecl.report.per_class import per_class
from densecl.report.style import COLOURS, DRAWN, GAIN, GREY, LOSS
from densecl.tables.choose import Choice
from densecl.tables.groupings import groupings
from densecl.tables.paper import Names

# what makes a page in seconds, however many runs there are
ROWS = 28  # of a benchmark that have figures and details: no two of them look alike
ALL_ROWS = 72  # of all benchmarks together; half as many where some benchmarks have none
BENCHMARKS = 6  # with figures and details, those with the most runs; all others have their ranking
DETAILS = (
    "groupings", "steps", "step_table", "classes", "heat_maps", "scale", "leaks", "leak_table", "costs", "matrices",
    "pictures", "strips", "bank_table", "galleries", "masks", "provenance", "examined", "order", "anatomy",
)  # fmt: skip


def render(
    files: Sequence[Found],
    faults: Sequence[str] = (),
    *,
    source: str,
    reported: Sequence[Reported] = (),
    bank_folder: Path | None = None,
    masks_of: MasksOf | None = None,
    most: int | None = None,
    choice: Choice | None = None,
) -> tuple[str, list[str]]:
    """The page of all records as HTML, and what could not be shown, which the page says too.

    Pictures are looked for beside the `files`, synthetic images in the `bank_folder`. `faults` say what was left out,
    `source` is the folder as the title names it, `choice` that of `densecl table`. `most` rows of each benchmark have
    figures and details; without it as many as make a page in seconds.
    """
    album, notes, names = Album(), list(faults), Names(None)
    shown = benchmarks(files, choice)
    best = detailed(shown, most)
    parts = [
        {"answer": answer.headline(benchmark, names)}
        | _section(benchmark, detail, album, notes.append, bank_folder, masks_of)
        for benchmark, detail in zip(shown, best, strict=True)
    ]
    if album.left_out:
        notes.append(f"{album.left_out} pictures left out, since the page would be too large with them")
    text = fill(
        "page.html.j2",
        shown,
        names,
        source=source,
        sections=parts,
        comparison=compare(
            [detail or benchmark.best(1) for benchmark, detail in zip(shown, best, strict=True)], reported
        ),
        notes=notes,
        album=album.kept.values(),
    )
    return text, notes


def fill(template: str, shown: Sequence[Benchmark], names: Names, **values: Any) -> str:
    """A template of this folder, filled with values and with what all pages say of the benchmarks that they show."""
    options: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, **options)
    return environment.get_template(template).render(
        values,
        overview=answer.matrices(shown, names),
        runs=sum(len(benchmark.records) for benchmark in shown),
        rows=sum(len(benchmark.members) for benchmark in shown),
        version=__version__,
        colours=COLOURS[:-1],
        gain=GAIN,
        loss=LOSS,
        grey=GREY,
        markers=DRAWN,
        svg=Markup,  # drawn by us, names in it are escaped
    )


def detailed(shown: Sequence[Benchmark], most: int | None = None) -> list[Benchmark | None]:
    """Each benchmark with the rows that have figures and details; None for one that has its ranking alone."""
    if most is not None:
        return [benchmark.best(most) for benchmark in shown]
    counts = sorted((len(benchmark.members) for benchmark in shown), reverse=True)[:BENCHMARKS]
    room = ALL_ROWS if len(shown) <= BENCHMARKS else ALL_ROWS // 2
    fits = (count for count in range(ROWS, 0, -1) if sum(min(count, rows) for rows in counts) <= room)
    count = next(fits, 1)
    chosen = {benchmark.slug for benchmark in sorted(shown, key=lambda each: -len(each.records))[:BENCHMARKS]}
    return [benchmark.best(count) if benchmark.slug in chosen else None for benchmark in shown]


def _section(
    benchmark: Benchmark,
    detail: Benchmark | None,
    album: Album,
    fault: Fault,
    bank_folder: Path | None,
    masks_of: MasksOf | None,
) -> dict[str, Any]:
    """The parts of a benchmark's section by their names in the template; an empty part is left out."""
    section = {
        "benchmark": benchmark,
        "detail": detail,
        "facts": facts(benchmark),
        "ranking": grids.ranking(benchmark),
    }
    if detail is None:
        return section | dict.fromkeys(DETAILS)
    heat_maps, scale = sections.heat_maps(detail)
    leaks, leak_table = sections.leaks(detail)
    steps = sections.over_steps(detail)
    columns = () if benchmark.is_sequence else groupings()
    kept = pictures.kept_pictures(detail, fault)
    return section | {
        "groupings": [(of.name, of.summary, grids.ranking(detail, of.name)) for of in columns],
        "steps": steps,
        "step_table": grids.after_steps(detail) if steps else None,
        "classes": per_class(detail),
        "heat_maps": heat_maps,
        "scale": scale,
        "leaks": leaks,
        "leak_table": leak_table,
        "costs": sections.costs(detail),
        "matrices": sections.matrices(detail),
        "pictures": pictures.picture_grid(kept, album),
        "strips": strips.strips(kept, album) or strips.panels(detail, album, fault),
        "bank_table": galleries.figures(detail),
        "galleries": galleries.galleries(detail, bank_folder, album, fault),
        "masks": masks(detail, masks_of, fault) if masks_of else [],
        "provenance": [provenance(member) for member in detail.members],
        "examined": referee.examined(detail),
        "order": referee.order(detail, fault),
        "anatomy": referee.anatomy(detail, fault),
    }


def facts(benchmark: Benchmark) -> list[str]:
    """Name what was learnt, on which data, with which network, as far as all runs agree."""
    first, runs, rows = benchmark.records[0], len(benchmark.records), len(benchmark.members)
    told = [f"{runs} run{'s' * (runs > 1)} in {rows} row{'s' * (rows > 1)}"]
    if benchmark.is_sequence:
        told.append("tasks " + ", ".join(task.name for task in first.tasks))
    elif benchmark.layout.steps:
        counts = [len(step) for step in benchmark.layout.steps]
        equal = f"{counts[-1]} in each of {len(counts) - 1} steps"
        later = equal if len(set(counts[1:])) == 1 and len(counts) > 2 else " + ".join(map(str, counts[1:]))
        told.append(f"{counts[0]} classes at step 0" + (f", then {later}" if later else ""))
    setting = first.settings.get("stream", {}).get("setting")
    if isinstance(setting, str) and not benchmark.is_sequence:
        told.append(setting)
    images = first.environment.get("images")
    if isinstance(images, dict) and {"train", "test"} <= images.keys():
        told.append(f"{images['train']} images to train on, {images['test']} to test on")
    names = {record.backbone for record in benchmark.records}
    return [*told, f"backbone {names.pop()}"] if len(names) == 1 else told
