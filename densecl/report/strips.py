"""Pictures of predictions: test images, their truth, and what a run predicted after each step or for each task."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from densecl.records.record import Found
from densecl.report.album import Album, Fault, Shown, read_picture
from densecl.report.gather import Benchmark, Member
from densecl.report.pictures import CLEAR, VOID, Kept
from densecl.report.style import GAIN, GREY, LOSS

Wanted = tuple[str, Image.Image | None, str]  # label, picture, what is on it
MOST = 8  # strips per benchmark
STEPS = 7  # of a strip; of more, the first, the last and some between


class Strip(NamedTuple):
    """Pictures of one run, below each other."""

    member: Member
    seed: int
    lines: tuple[Shown, ...]
    legend: tuple[tuple[str, str], ...] = ()  # name and colour (#rrggbb) of the classes in truth and predictions


def strips(kept: Sequence[Kept], album: Album) -> list[Strip]:
    """A strip of each run that kept pictures, `MOST` at most."""
    return [_strip(one, album) for one in kept[:MOST]]


def panels(benchmark: Benchmark, album: Album, fault: Fault) -> list[Strip]:
    """Of a sequence, the pictures of one run of each row, `MOST` at most; rows without pictures have none."""
    members = benchmark.members if benchmark.is_sequence else ()
    made = ((_panels(member, run, album, fault) for run in member.runs) for member in members)
    first = (next(filter(None, of_member), None) for of_member in made)
    return list(itertools.islice(filter(None, first), MOST))


def changes(truth: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Classify each pixel (H, W) by how its predicted label changed from `first` to `last`.

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
    """At most `STEPS` of `count` steps, evenly spaced, with the first and the last."""
    if count <= STEPS:
        return list(range(count))
    return sorted({round(k * (count - 1) / (STEPS - 1)) for k in range(STEPS)})


def _panels(member: Member, run: Found, album: Album, fault: Fault) -> Strip | None:
    """Of a sequence: each task when it was learnt and after the last one."""
    wanted, last = [], len(run.record.steps) - 1
    for learnt_at, step in enumerate(run.record.steps):
        for k in dict.fromkeys((learnt_at, last)):
            name = f"step{k}-{step.task}.png".replace("/", "_")  # a record must not lead out of its folder
            image = read_picture(run.path.parent / "pictures" / name, fault)
            when = f"{step.task} " + ("when learnt" if k == learnt_at else f"after task {k + 1}")
            alt = f"{member.label}, task {when}: test images in rows of input, output and truth"
            wanted.append((when, image and image.convert("RGB"), alt))
    shots = _shots(wanted, album)
    return Strip(member, run.record.seed, tuple(shots)) if shots else None


def _strip(kept: Kept, album: Album) -> Strip:
    """The test images, their truth, the predictions after some steps, and what those changed."""
    who, with_maps, maps = f"{kept.member.label}, seed {kept.seed}", sorted(kept.maps), kept.maps
    wanted: list[Wanted] = [
        ("image", kept.photo, "test images"),
        ("truth", kept.truth, "the true labels of these images"),
    ]
    steps = [with_maps[index] for index in shown_steps(len(with_maps))]
    wanted += [(f"after step {k}", maps[k], f"{who}: labels predicted after step {k}") for k in steps]
    if len(with_maps) > 1:
        first, last = with_maps[0], with_maps[-1]
        kinds = changes(np.asarray(kept.truth), np.asarray(maps[first]), np.asarray(maps[last]))
        right, wrong = (100 * float(np.mean(kinds == kind)) for kind in (1, 2))
        words = f"{right:.0f} % of the pixels became right and {wrong:.0f} % became wrong from step {first} to {last}"
        wanted.append(("changed", _painted(kinds), f"{who}: {words}"))
    return Strip(kept.member, kept.seed, tuple(_shots(wanted, album)), kept.legend)


def _shots(wanted: Sequence[Wanted], album: Album) -> list[Shown]:
    """Pictures that exist and that the page has room for."""
    pictures = [(label, None if image is None else album.add(image, CLEAR), alt) for label, image, alt in wanted]
    return [Shown(label, picture, alt) for label, picture, alt in pictures if picture is not None]


def _painted(kinds: np.ndarray) -> Image.Image:
    """`changes` in colours on a transparent ground."""
    table = np.zeros((4, 4), np.uint8)
    for kind, colour in ((1, GAIN), (2, LOSS), (3, GREY)):
        table[kind] = [*(round(255 * part) for part in to_rgb(colour)), 255]
    return Image.fromarray(table[kinds], mode="RGBA")
