"""The page: all sections of all benchmarks, filled into one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from densecl import __version__
from densecl.records.published import Reported
from densecl.records.record import Found
from densecl.report import banks, comparison, masks, sections, sequences, strips, tables
from densecl.report.album import Album
from densecl.report.gather import Benchmark, Member, benchmarks
from densecl.report.settings import Provenance, provenance
from densecl.report.strips import Strip
from densecl.report.style import COLOURS, DRAWN, GAIN, GREY, LOSS
from densecl.tables.groupings import groupings

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class MaskSection:
    """The masks of one run."""

    member: Member
    shares: tables.Grid
    agreement: tables.Grid


@dataclass(frozen=True)
class Section:
    """What the page shows of one benchmark; an empty part is left out or says why."""

    benchmark: Benchmark
    facts: tuple[str, ...]
    ranking: tables.Grid
    groupings: tuple[tuple[str, str, tables.Grid], ...] = ()  # name, who prints it, ranking
    steps: sections.Plot | None = None
    step_table: tables.Grid | None = None
    heat_maps: tuple[sections.HeatMap, ...] = ()
    scale: float = 1.0
    leaks: tuple[sections.Plot, ...] = ()
    leak_table: tables.Grid | None = None
    costs: tuple[sections.Plot, ...] = ()
    matrices: tuple[sequences.Matrix, ...] = ()
    strips: tuple[Strip, ...] = ()
    panels: tuple[tuple[Member, tuple[sequences.Panel, ...]], ...] = ()
    bank_table: tables.Grid | None = None
    galleries: tuple[banks.Gallery, ...] = ()
    masks: tuple[MaskSection, ...] = ()
    provenance: tuple[Provenance, ...] = ()


def render(
    found: Sequence[Found],
    faults: Sequence[str] = (),
    *,
    source: str,
    reported: Sequence[Reported] = (),
    bank_folder: Path | None = None,
    mask_figures: Mapping[Path, masks.MaskFigures] | None = None,
) -> tuple[str, list[str]]:
    """The page of all records.

    Args:
        found: records and their files; pictures are looked for beside these.
        faults: what was left out, and why.
        source: the folder, as the title names it.
        reported: numbers of papers.
        bank_folder: where synthetic images lie.
        mask_figures: of runs that have masks, by the path of their record.

    Returns:
        HTML, and what could not be shown, which the page says too.
    """
    album, notes = Album(), list(faults)
    known = benchmarks(found)
    parts = [_section(one, album, notes, bank_folder, mask_figures or {}) for one in known]
    if album.left_out:
        notes.append(f"{album.left_out} pictures left out, since the page would be too large with them")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(TEMPLATE).render(
        source=source,
        version=__version__,
        sections=parts,
        runs=sum(len(one.records) for one in known),
        rows=sum(len(one.members) for one in known),
        comparison=comparison.compare(known, reported),
        notes=notes,
        album=album.kept.values(),
        colours=COLOURS[:-1],
        gain=GAIN,
        loss=LOSS,
        markers=DRAWN,
        grey=GREY,
        svg=Markup,  # drawn by us, names in it are escaped
    )
    return text, notes


def _section(
    one: Benchmark,
    album: Album,
    notes: list[str],
    bank_folder: Path | None,
    mask_figures: Mapping[Path, masks.MaskFigures],
) -> Section:
    ranking = tables.ranking(one)
    origins = tuple(provenance(member) for member in one.members)
    masked = tuple(
        MaskSection(
            member, masks.shares(member, mask_figures[run.path]), masks.agreement(member, mask_figures[run.path])
        )
        for member in one.members
        for run in [next((run for run in member.runs if run.path in mask_figures), None)]
        if run is not None
    )
    if one.is_sequence:
        return Section(
            one,
            _facts(one),
            ranking,
            matrices=tuple(sequences.matrices(one)),
            costs=tuple(sequences.sizes(one)),
            panels=tuple(
                (member, tuple(shown))
                for member in one.members[: strips.MOST]
                if (shown := sequences.panels(member, album, notes.append))
            ),
            masks=masked,
            provenance=origins,
        )
    heat_maps, scale = sections.heat_maps(one)
    leaks, leak_table = sections.leaks(one) or ([], None)
    steps = sections.over_steps(one)
    return Section(
        one,
        _facts(one),
        ranking,
        groupings=tuple((group.name, group.summary, tables.ranking(one, group.name)) for group in groupings()),
        steps=steps,
        step_table=tables.after_steps(one) if steps else None,
        heat_maps=tuple(heat_maps),
        scale=scale,
        leaks=tuple(leaks),
        leak_table=leak_table,
        costs=tuple(sections.costs(one)),
        strips=tuple(strips.strips(one, album, notes.append)),
        bank_table=banks.figures(one),
        galleries=tuple(banks.galleries(one, bank_folder, album, notes.append)),
        masks=masked,
        provenance=origins,
    )


def _facts(one: Benchmark) -> tuple[str, ...]:
    """What was learnt, on what, with what, as far as all runs agree."""
    first = one.records[0]
    facts = [
        f"{len(one.records)} run{'s' * (len(one.records) > 1)} in {len(one.members)} row{'s' * (len(one.members) > 1)}"
    ]
    if one.is_sequence:
        facts.append("tasks " + ", ".join(task.name for task in first.tasks))
    elif one.layout.steps:
        counts = [len(step) for step in one.layout.steps]
        later = f", then {_counts(counts[1:])}" if counts[1:] else ""
        facts.append(f"{counts[0]} classes at step 0{later}")
    setting = first.settings.get("stream", {}).get("setting")
    if isinstance(setting, str) and not one.is_sequence:
        facts.append(setting)
    images = first.environment.get("images")
    if isinstance(images, dict) and {"train", "test"} <= images.keys():
        facts.append(f"{images['train']} images to train on, {images['test']} to test on")
    names = {record.backbone for record in one.records}
    return (*facts, f"backbone {names.pop()}") if len(names) == 1 else tuple(facts)


def _counts(counts: Sequence[int]) -> str:
    """`5 in each of 2 steps`, or `5 + 3`."""
    if len(set(counts)) > 1 or len(counts) == 1:
        return " + ".join(map(str, counts))
    return f"{counts[0]} in each of {len(counts)} steps"
