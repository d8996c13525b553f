"""The page: all sections of all benchmarks, filled into one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from densecl import __version__
from densecl.records.published import Reported
from densecl.records.record import Found
from densecl.report import galleries, grids, sections, strips
from densecl.report.album import Album, Fault
from densecl.report.comparison import compare
from densecl.report.gather import Benchmark, benchmarks
from densecl.report.masks import masks
from densecl.report.origins import provenance
from densecl.report.style import COLOURS, DRAWN, GAIN, GREY, LOSS
from densecl.tables.groupings import groupings

if TYPE_CHECKING:
    from densecl.finished.inspect_masks import MaskFigures


def render(
    files: Sequence[Found],
    faults: Sequence[str] = (),
    *,
    source: str,
    reported: Sequence[Reported] = (),
    bank_folder: Path | None = None,
    figures: "Mapping[Path, MaskFigures] | None" = None,
) -> tuple[str, list[str]]:
    """The page of all records as HTML, and what could not be shown, which the page says too.

    Pictures are looked for beside the `files`, synthetic images in the `bank_folder`. `faults` say what was left out,
    `source` is the folder as the title names it, and `figures` are those of masks, by the path of the run's record.
    """
    album, notes = Album(), list(faults)
    shown = benchmarks(files)
    parts = [_section(benchmark, album, notes.append, bank_folder, figures or {}) for benchmark in shown]
    if album.left_out:
        notes.append(f"{album.left_out} pictures left out, since the page would be too large with them")
    loader = FileSystemLoader(Path(__file__).parent)
    options: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    template = Environment(loader=loader, autoescape=True, **options).get_template("page.html.j2")
    text = template.render(
        source=source,
        version=__version__,
        sections=parts,
        runs=sum(len(benchmark.records) for benchmark in shown),
        rows=sum(len(benchmark.members) for benchmark in shown),
        comparison=compare(shown, reported),
        notes=notes,
        album=album.kept.values(),
        colours=COLOURS[:-1],
        gain=GAIN,
        loss=LOSS,
        grey=GREY,
        markers=DRAWN,
        svg=Markup,  # drawn by us, names in it are escaped
    )
    return text, notes


def _section(
    benchmark: Benchmark,
    album: Album,
    fault: Fault,
    bank_folder: Path | None,
    figures: "Mapping[Path, MaskFigures]",
) -> dict[str, Any]:
    """The parts of a benchmark's section by their names in the template; an empty part is left out."""
    heat_maps, scale = sections.heat_maps(benchmark)
    leaks, leak_table = sections.leaks(benchmark)
    steps = sections.over_steps(benchmark)
    columns = () if benchmark.is_sequence else groupings()
    return {
        "benchmark": benchmark,
        "facts": _facts(benchmark),
        "ranking": grids.ranking(benchmark),
        "groupings": [(of.name, of.summary, grids.ranking(benchmark, of.name)) for of in columns],
        "steps": steps,
        "step_table": grids.after_steps(benchmark) if steps else None,
        "heat_maps": heat_maps,
        "scale": scale,
        "leaks": leaks,
        "leak_table": leak_table,
        "costs": sections.costs(benchmark),
        "matrices": sections.matrices(benchmark),
        "strips": strips.strips(benchmark, album, fault),
        "bank_table": galleries.figures(benchmark),
        "galleries": galleries.galleries(benchmark, bank_folder, album, fault),
        "masks": masks(benchmark, figures),
        "provenance": [provenance(member) for member in benchmark.members],
    }


def _facts(benchmark: Benchmark) -> list[str]:
    """What was learnt, on what, with what, as far as all runs agree."""
    first, runs, rows = benchmark.records[0], len(benchmark.records), len(benchmark.members)
    facts = [f"{runs} run{'s' * (runs > 1)} in {rows} row{'s' * (rows > 1)}"]
    if benchmark.is_sequence:
        facts.append("tasks " + ", ".join(task.name for task in first.tasks))
    elif benchmark.layout.steps:
        counts = [len(step) for step in benchmark.layout.steps]
        equal = f"{counts[-1]} in each of {len(counts) - 1} steps"
        later = equal if len(set(counts[1:])) == 1 and len(counts) > 2 else " + ".join(map(str, counts[1:]))
        facts.append(f"{counts[0]} classes at step 0" + (f", then {later}" if later else ""))
    setting = first.settings.get("stream", {}).get("setting")
    if isinstance(setting, str) and not benchmark.is_sequence:
        facts.append(setting)
    images = first.environment.get("images")
    if isinstance(images, dict) and {"train", "test"} <= images.keys():
        facts.append(f"{images['train']} images to train on, {images['test']} to test on")
    names = {record.backbone for record in benchmark.records}
    return [*facts, f"backbone {names.pop()}"] if len(names) == 1 else facts
