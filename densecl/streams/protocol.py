"""Which classes and which images each step has: the splits and settings of class-incremental segmentation.

Names follow the field: `15-5s` (Cermelli et al., CVPR 2020) is what later papers call `15-1`.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from densecl.errors import SettingError

VOID = 255
Setting = Literal["overlapped", "disjoint", "sequential"]
SETTINGS: tuple[str, ...] = ("overlapped", "disjoint", "sequential")
Steps = tuple[tuple[int, ...], ...]
NAME = re.compile(r"(\d+)-(\d+)(s?)$")


def steps(name: str, n_classes: int = 20) -> Steps:
    """The classes of each step of a split, background excluded.

    `A-B`: the first A classes, then B at a time until all are learnt (`15-5`, `15-1`, `10-10`, `5-3`);
    `A-Bs`: the first A, then B more, one at a time (`15-5s` is `15-1`).

    Args:
        name: the split.
        n_classes: classes of the data set without background.

    Raises:
        SettingError: not of that form, or the numbers do not sum to the classes.
    """
    match = NAME.match(name)
    if match is None:
        raise SettingError(f"'{name}' is not a split", "write A-B or A-Bs, such as 15-5 or 15-5s")
    first, more, single = int(match[1]), int(match[2]), bool(match[3])
    rest = n_classes - first
    if first < 1 or more < 1 or rest < 1:
        raise SettingError(
            f"the split '{name}' does not fit {n_classes} classes", "the first number must leave some for later"
        )
    if single and more != rest:
        raise SettingError(f"the split '{name}' does not sum to {n_classes} classes", f"did you mean {first}-{rest}s?")
    size = 1 if single else more
    if rest % size:
        raise SettingError(
            f"the split '{name}' does not sum to {n_classes} classes",
            f"{rest} classes are left, not a multiple of {size}",
        )
    bounds = [0, *range(first, n_classes + 1, size)]
    return tuple(tuple(range(a + 1, b + 1)) for a, b in itertools.pairwise(bounds))


def ordered(split: Steps, order: Sequence[int] | int | None) -> Steps:
    """The split with classes in another order of arrival: a list of all class ids, or the seed of a shuffle.

    Raises:
        SettingError: a list that is not a permutation of the classes.
    """
    if order is None:
        return split
    n = sum(map(len, split))
    if isinstance(order, int):
        order = (1 + np.random.default_rng(order).permutation(n)).tolist()
    if sorted(order) != list(range(1, n + 1)):
        twice = sorted({c for c in order if list(order).count(c) > 1})
        fault = f"holds {twice} twice" if twice else f"must hold each of 1..{n} once"
        raise SettingError(f"stream.order {list(order)} {fault}", "background is not a class")
    classes = iter(order)
    return tuple(tuple(next(classes) for _ in step) for step in split)


def presence(image_classes: Iterable[Iterable[int]] | np.ndarray) -> np.ndarray:
    """(n, 256) bool: which ids each image holds; an array of that form is taken as it is."""
    if isinstance(image_classes, np.ndarray) and image_classes.ndim == 2 and image_classes.dtype == np.bool_:
        return image_classes
    rows = [np.fromiter(classes, dtype=np.int64) for classes in image_classes]
    table = np.zeros((len(rows), 256), dtype=bool)
    for row, classes in zip(table, rows, strict=True):
        row[classes] = True
    return table


def select(
    image_classes: Iterable[Iterable[int]] | np.ndarray, steps: Steps, setting: str = "overlapped"
) -> list[np.ndarray]:
    """Sorted indices of the training images of each step.

    overlapped: an image that holds at least one class of the step. disjoint: and no class of a later step.
    sequential: the images of disjoint (old classes stay labelled there; see `step_table`).

    Args:
        image_classes: the ids each image holds, as an iterable of ids or an (n, 256) bool array; 0 and 255 are ignored.
        steps: classes of each step.
        setting: one of SETTINGS.

    Raises:
        SettingError: unknown setting, or a step that no image belongs to.
    """
    if setting not in SETTINGS:
        raise SettingError(f"unknown setting '{setting}'", f"known: {', '.join(SETTINGS)}")
    table = presence(image_classes)
    result = []
    for k, current in enumerate(steps):
        future = [c for later in steps[k + 1 :] for c in later]
        chosen = table[:, list(current)].any(axis=1)
        if setting != "overlapped":
            chosen &= ~table[:, future].any(axis=1)
        indices = np.flatnonzero(chosen)
        if not len(indices):
            raise SettingError(
                f"step {k} (classes {', '.join(map(str, current))}) has no image in the {setting} setting",
                "use another split, setting or class order, or more data",
            )
        result.append(indices)
    return result


def arrival(steps: Steps) -> dict[int, int]:
    """Class id -> label: classes are numbered 1.. in order of arrival; 0 stays background."""
    return {c: label for label, c in enumerate((c for step in steps for c in step), start=1)}


def step_table(steps: Steps, step: int, setting: str, labels: str) -> np.ndarray:
    """(256,) uint8: original id -> training target of a step.

    Classes of other steps become 0; `sequential` keeps the earlier ones. Void stays 255 (PLOP and successors) or,
    with `mib2020`, becomes 0 as in MiB's published training.
    """
    known = [c for s in (steps[: step + 1] if setting == "sequential" else steps[step : step + 1]) for c in s]
    number = arrival(steps)
    table = np.zeros(256, dtype=np.uint8)
    table[known] = [number[c] for c in known]
    table[VOID] = 0 if labels == "mib2020" else VOID
    return table


def test_table(steps: Steps) -> np.ndarray:
    """(256,) uint8: original id -> label for evaluation; every true class keeps its own, seen or not."""
    table = np.full(256, VOID, dtype=np.uint8)
    table[0] = 0
    for c, label in arrival(steps).items():
        table[c] = label
    return table


def unseen_rule(labels: str) -> Literal["background", "ignore"]:
    """What the pixels of classes not learnt yet count as in an intermediate evaluation."""
    return "ignore" if labels == "mib2020" else "background"
