"""Prediction strips: the same test images as they are, as they should be, and as a run saw them after each step."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from densecl.palette import palette
from densecl.report.album import Album, Fault, Picture, labels, read_picture
from densecl.report.gather import Benchmark, Member
from densecl.report.style import GAIN, GREY, LOSS

VOID = 255
MOST = 8  # strips a benchmark
STEPS = 7  # of a strip; of more, the first, the last and some between


class Line(NamedTuple):
    """One row of a strip."""

    label: str
    picture: Picture
    alt: str


class Strip(NamedTuple):
    """All rows of one run. `legend`: name and colour (#rrggbb) of the classes that truth or predictions show."""

    member: Member
    seed: int
    lines: tuple[Line, ...]
    legend: tuple[tuple[str, str], ...]


def strips(benchmark: Benchmark, album: Album, fault: Fault) -> list[Strip]:
    """A strip of one run of each row, as many as may be shown; rows without pictures have none."""
    result = []
    for member in benchmark.members:
        for found in member.runs:
            if len(result) == MOST:
                return result
            strip = _strip(
                member, found.record.seed, found.path.parent / "pictures", found.record.class_names, album, fault
            )
            if strip is not None:
                result.append(strip)
                break
    return result


def changes(truth: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """What the steps between two predictions did, pixel by pixel.

    Args:
        truth: (H, W) labels; where it is void (255), nothing counts as changed.
        first: (H, W) labels predicted before.
        last: (H, W) labels predicted after.

    Returns:
        (H, W) uint8: 0 where the label stayed or the truth is void, 1 where it became right, 2 where it was right and
        is not any more, 3 where one wrong label became another.
    """
    changed = (first != last) & (truth != VOID)
    result = np.zeros(truth.shape, np.uint8)
    result[changed] = 3
    result[changed & (last == truth)] = 1
    result[changed & (first == truth)] = 2
    return result


def shown_steps(count: int) -> list[int]:
    """At most `STEPS` of that many steps, evenly, the first and the last among them."""
    if count <= STEPS:
        return list(range(count))
    return sorted({round(k * (count - 1) / (STEPS - 1)) for k in range(STEPS)})


def _strip(member: Member, seed: int, folder: Path, names: Sequence[str], album: Album, fault: Fault) -> Strip | None:
    truth = read_picture(folder / "truth.png", fault)
    if truth is None:
        return None
    found = {path.stem: path for path in folder.glob("step*.png")}
    count = max((int(stem[4:]) + 1 for stem in found if stem[4:].isdecimal()), default=0)
    maps: dict[int, Image.Image] = {}
    for k in range(count):
        image = read_picture(folder / f"step{k}.png", fault)
        if image is not None and (image.size, image.mode) != (truth.size, "P"):
            fault(f"{folder / f'step{k}.png'} does not fit truth.png beside it")
        elif image is not None:
            maps[k] = image
    if not maps or truth.mode != "P":
        return None
    who = f"{member.label}, seed {seed}"
    wanted: list[tuple[str, Image.Image | None, str]] = [
        ("image", read_picture(folder / "images.png", fault), "test images"),
        ("truth", truth, "the true labels of these images"),
    ]
    known = sorted(maps)
    wanted += [
        (f"after step {known[i]}", maps[known[i]], f"{who}: labels predicted after step {known[i]}")
        for i in shown_steps(len(known))
    ]
    if len(known) > 1:
        kinds = changes(labels(truth), labels(maps[known[0]]), labels(maps[known[-1]]))
        wanted.append(("changed", _painted(kinds), f"{who}: {_in_words(kinds)} from step {known[0]} to {known[-1]}"))
    lines = []
    for label, image, alt in wanted:
        picture = None if image is None else album.add(image)
        if picture is not None:
            lines.append(Line(label, picture, alt))
    present = sorted(set().union(*(np.unique(labels(image)).tolist() for image in (truth, *maps.values()))))
    legend = tuple((str(names[label]), _colour(label)) for label in present if label < len(names))
    return Strip(member, seed, tuple(lines), legend)


def _painted(kinds: np.ndarray) -> Image.Image:
    """`changes` in colours on a transparent ground."""
    table = np.zeros((4, 4), np.uint8)
    for kind, colour in ((1, GAIN), (2, LOSS), (3, GREY)):
        table[kind] = [*(round(255 * part) for part in to_rgb(colour)), 255]
    return Image.fromarray(table[kinds], mode="RGBA")


def _in_words(kinds: np.ndarray) -> str:
    shares = [100 * float(np.mean(kinds == kind)) for kind in (1, 2)]
    return f"{shares[0]:.0f} % of the pixels became right and {shares[1]:.0f} % became wrong"


def _colour(label: int) -> str:
    return "#" + palette()[3 * label : 3 * label + 3].hex()
