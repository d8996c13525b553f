"""Predictions of all rows on the same test images: images as columns, the truth on top, a line for each row."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from densecl.palette import palette
from densecl.records.record import Found
from densecl.report.album import Album, Fault, Picture, read_picture
from densecl.report.gather import Benchmark, Member

VOID = 255
CLEAR = (0, VOID)  # labels whose photograph is not painted over


class Kept(NamedTuple):
    """The pictures of one run: several test images side by side, and the label maps of them."""

    member: Member
    seed: int
    names: Sequence[str]  # of the classes, by label
    count: int  # images side by side
    photo: Image.Image | None
    truth: Image.Image
    maps: dict[int, Image.Image]  # the predictions after each step

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Name and colour (#rrggbb) of the classes in truth and predictions."""
        images = (self.truth, *self.maps.values())
        present = sorted(set().union(*(np.unique(np.asarray(image)).tolist() for image in images)))
        colours = {label: "#" + palette()[3 * label : 3 * label + 3].hex() for label in present}
        return tuple((str(self.names[label]), colours[label]) for label in present if 0 < label < len(self.names))


class Line(NamedTuple):
    """A line of the grid: labels over the photographs; without labels, the photographs alone."""

    member: Member | None
    title: str
    labels: Picture | None
    alt: str


class PictureGrid(NamedTuple):
    """The same images for all lines."""

    photo: Picture
    count: int
    lines: tuple[Line, ...]
    legend: tuple[tuple[str, str], ...]
    elsewhere: int  # rows with pictures of other images


def kept_pictures(benchmark: Benchmark, fault: Fault) -> list[Kept]:
    """The pictures of one run of each row that has some; none of a sequence of tasks."""
    if benchmark.is_sequence:
        return []
    of_runs = ((_kept(member, run, fault) for run in member.runs) for member in benchmark.members)
    return [first for of_member in of_runs if (first := next(filter(None, of_member), None)) is not None]


def picture_grid(kept: Sequence[Kept], album: Album) -> PictureGrid | None:
    """The grid of the images that most rows have pictures of; None where no photograph was kept."""
    groups: dict[bytes, list[Kept]] = {}
    for one in kept:
        if one.photo is not None and one.photo.size == one.truth.size:
            groups.setdefault(one.photo.tobytes() + one.truth.tobytes(), []).append(one)
    if not groups:
        return None
    shown = max(groups.values(), key=len)
    first = shown[0]
    photo, truth = album.add(first.photo), album.add(first.truth, CLEAR)
    if photo is None:
        return None
    lines = [Line(None, "photographs", None, "test images"), Line(None, "truth", truth, "the true labels")]
    for one in shown:
        last = max(one.maps)
        labels = album.add(one.maps[last], CLEAR)
        alt = f"{one.member.label}, seed {one.seed}: labels predicted after step {last}"
        lines += [Line(one.member, f"seed {one.seed}", labels, alt)] if labels is not None else []
    legend = tuple(dict.fromkeys(entry for one in shown for entry in one.legend))
    return PictureGrid(photo, first.count, tuple(lines), legend, len(kept) - len(shown))


def _kept(member: Member, run: Found, fault: Fault) -> Kept | None:
    folder = run.path.parent / "pictures"
    truth = read_picture(folder / "truth.png", fault)
    if truth is None:
        return None
    numbers = [path.stem[4:] for path in folder.glob("step*.png")]
    maps: dict[int, Image.Image] = {}
    for k in range(max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)):
        image = read_picture(folder / f"step{k}.png", fault)
        if image is not None and (image.size, image.mode) != (truth.size, "P"):
            fault(f"{folder / f'step{k}.png'} does not fit truth.png beside it")
        elif image is not None:
            maps[k] = image
    if not maps or truth.mode != "P":
        return None
    photo = read_picture(folder / "images.png", fault)
    names = run.record.class_names
    return Kept(member, run.record.seed, names, _count(folder, truth), photo, truth, maps)


def _count(folder: Path, truth: Image.Image) -> int:
    """The number of images side by side; where the run does not say, as if they were square."""
    try:
        with (folder / "pictures.json").open("rb") as file:
            about = json.loads(file.read(10_000))
        count = about.get("count") if isinstance(about, dict) else None
    except (OSError, ValueError, RecursionError):
        count = None
    if isinstance(count, int) and not isinstance(count, bool) and count > 0 and truth.width % count == 0:
        return count
    return max(1, round(truth.width / truth.height))
