"""Synthetic images that runs replayed: figures from the records, pictures from the cache where they still are."""

import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from densecl.records.layout import ranges
from densecl.records.record import Record
from densecl.report.album import Album, Fault, Picture, read_picture
from densecl.report.gather import Benchmark
from densecl.report.tables import Datum, Grid, Head, Line

MOST = 6  # galleries a benchmark
HEADS = {
    "target_pixels": Head("wanted", about="share of pixels that the teacher gives to a wanted class, %"),
    "foreground": Head("foreground", about="share of pixels that the teacher does not give to background, %"),
    "shown": Head("shown", about="share of wanted classes that the teacher finds in their image, %"),
    "confidence": Head("confidence", about="mean probability the teacher gives to the class it chooses, %"),
    "distance": Head("distance", about="distance of the BatchNorm statistics, lower is closer to real images"),
}


class Gallery(NamedTuple):
    """The best synthetic image of each class of a bank, above what the teacher sees in it."""

    caption: str
    picture: Picture
    alt: str


def banks_of(record: Record) -> list[dict[str, Any]]:
    """The banks that were replayed in the last step, as the plugin noted them."""
    if not record.steps:
        return []
    noted = (note.get("banks") for note in record.steps[-1].notes.values())
    return [bank for banks in noted if isinstance(banks, list) for bank in banks if isinstance(bank, dict)]


def figures(benchmark: Benchmark) -> Grid | None:
    """How good the images of each row were, mean over its runs; None where no run noted it."""
    lines = []
    for member in benchmark.members:
        found = [
            bank for record in member.records for bank in banks_of(record) if isinstance(bank.get("quality"), dict)
        ]
        if not found:
            continue
        cells = []
        for key in HEADS:
            values = [v for bank in found if isinstance(v := bank["quality"].get(key), int | float)]
            mean = statistics.fmean(values) if values else None
            text = "–" if mean is None else f"{mean:.1f}" if key == "distance" else f"{100 * mean:.1f}"
            cells.append(Datum(text, mean))
        size = [sum(b.get("bytes", 0) for b in banks_of(record)) / 2**20 for record in member.records]
        cells.append(Datum(f"{statistics.fmean(size):.2f}", statistics.fmean(size)))
        lines.append(Line(member, "", tuple(cells)))
    notes = tuple(f"{head.text}: {head.about}" for head in HEADS.values())
    return Grid((*HEADS.values(), Head("MiB")), tuple(lines), notes) if lines else None


def galleries(benchmark: Benchmark, folder: Path | None, album: Album, fault: Fault) -> list[Gallery]:
    """The galleries of one run of each row, those of the last step.

    Args:
        benchmark: what was run on it.
        folder: where banks lie, each in a folder named by its key.
        album: of the page.
        fault: hears of pictures that cannot be read.
    """
    result: list[Gallery] = []
    if folder is None:
        return result
    for member in benchmark.members:
        for found in member.runs:
            own: list[Gallery] = []
            for bank in banks_of(found.record):
                key = bank.get("key")
                if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]+", key):
                    continue  # controls have no bank; and a record must not lead out of the folder
                image = read_picture(folder / key / "gallery.png", fault)
                picture = None if image is None else album.add(image)
                if picture is not None:
                    classes = ranges(label for label in bank.get("labels", ()) if isinstance(label, int))
                    text = f"{member.style.letter}: classes {classes}, made before step {bank.get('step')}"
                    who = f"{member.label}, seed {found.record.seed}"
                    alt = f"{who}: the best synthetic image of each class and its labels"
                    own.append(Gallery(text, picture, alt))
            if own:
                result += own
                break
        if len(result) >= MOST:
            break
    return result[:MOST]
