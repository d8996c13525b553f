"""Synthetic images that runs replayed: figures from the records, pictures from the cache if they are still there."""

import re
import statistics
from pathlib import Path
from typing import Any

from densecl.records.layout import ranges
from densecl.records.record import Record
from densecl.report.album import Album, Fault, Shown
from densecl.report.gather import Benchmark, Member
from densecl.report.grids import Datum, Grid, Head, Line

MOST = 6  # galleries per benchmark
HEADS = {
    "target_pixels": Head("wanted", about="share of pixels that the teacher gives to a wanted class, %"),
    "foreground": Head("foreground", about="share of pixels that the teacher does not give to background, %"),
    "shown": Head("shown", about="share of wanted classes that the teacher finds in their image, %"),
    "confidence": Head("confidence", about="mean probability the teacher gives to the class it chooses, %"),
    "distance": Head("distance", about="distance of the BatchNorm statistics, lower is closer to real images"),
}


def banks_of(record: Record) -> list[dict[str, Any]]:
    """The banks that were replayed in the last step, as the plugin noted them."""
    noted = [note.get("banks") for note in record.steps[-1].notes.values()] if record.steps else []
    return [bank for banks in noted if isinstance(banks, list) for bank in banks if isinstance(bank, dict)]


def figures(benchmark: Benchmark) -> Grid | None:
    """Quality of each row's images, mean over its runs; None if no run noted it."""
    lines = []
    for member in benchmark.members:
        banks = [banks_of(record) for record in member.records]
        qualities = [b["quality"] for of_run in banks for b in of_run if isinstance(b.get("quality"), dict)]
        if not qualities:
            continue
        cells = []
        for key in HEADS:
            values = [value for quality in qualities if isinstance(value := quality.get(key), int | float)]
            mean = statistics.fmean(values) if values else None
            cells.append(Datum("–" if mean is None else f"{mean * (1 if key == 'distance' else 100):.1f}", mean))
        size = statistics.fmean(sum(bank.get("bytes", 0) for bank in of_run) / 2**20 for of_run in banks)
        lines.append(Line(member, (*cells, Datum(f"{size:.2f}", size))))
    notes = tuple(f"{head.text}: {head.about}" for head in HEADS.values())
    return Grid((*HEADS.values(), Head("MiB")), tuple(lines), notes) if lines else None


def galleries(benchmark: Benchmark, folder: Path | None, album: Album, fault: Fault) -> list[Shown]:
    """The galleries of the last step, of one run per row; `folder` holds banks, each in a folder named by its key."""
    result: list[Shown] = []
    for member in benchmark.members:
        if folder is None or len(result) >= MOST:
            break
        of_runs = (_galleries(member, run.record, folder, album, fault) for run in member.runs)
        result += next(filter(None, of_runs), [])
    return result[:MOST]


def _galleries(member: Member, record: Record, folder: Path, album: Album, fault: Fault) -> list[Shown]:
    """The best synthetic image of each class of a bank, above the labels that the teacher gives it."""
    result = []
    for bank in banks_of(record):
        key = bank.get("key")
        if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]+", key):
            continue  # controls have no bank; and a record must not lead out of the folder
        picture = album.add_file(folder / key / "gallery.png", fault)
        if picture is not None:
            classes = ranges(label for label in bank.get("labels", ()) if isinstance(label, int))
            text = f"{member.short}: classes {classes}, made before step {bank.get('step')}"
            alt = f"{member.label}, seed {record.seed}: the best synthetic image of each class and its labels"
            result.append(Shown(text, picture, alt))
    return result
