"""Classes and images of each step: the splits and settings of class-incremental segmentation.

Names follow the field: `15-5s` (Cermelli et al., CVPR 2020) is what later papers call `15-1`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from densecl.errors import SettingError, UnknownNameError
from densecl.settings.splits import FORMS, SPLIT

VOID = 255
Setting = Literal["overlapped", "disjoint", "sequential", "partitioned"]
SETTINGS: tuple[str, ...] = get_args(Setting)
Labels = Literal["plop2021", "mib2020", "strict"]
LABELS: tuple[str, ...] = get_args(Labels)
Steps = tuple[tuple[int, ...], ...]


def steps(name: str, n_classes: int = 20) -> Steps:
    """The classes of each step of a split, background excluded.

    `A-B`: the first A classes, then B at a time until all are learnt (`15-5`, `15-1`, `10-10`, `5-3`);
    `A-Bs`: the first A, then B more, one at a time (`15-5s` is `15-1`);
    `A-B-C`: the first A, then B, then C, and so on (`10-6-4`).

    SettingError for another form, or numbers that do not sum to `n_classes`, those of the data set without background.
    """
    if SPLIT.fullmatch(name) is None:
        raise SettingError(f"'{name}' is not a split", FORMS)
    single = name.endswith("s")
    sizes = [int(size) for size in name.rstrip("s").split("-")]
    first, more = sizes[:2]
    rest = n_classes - first
    if min(sizes) < 1 or rest < 1:
        message = f"the split '{name}' does not fit {n_classes} classes"
        raise SettingError(message, f"each number is 1 or more, and the first leaves some for later: {FORMS}")
    message = f"the split '{name}' does not sum to {n_classes} classes"
    if len(sizes) == 2:
        if single and more != rest:
            raise SettingError(message, f"did you mean {first}-{rest}s? {FORMS}")
        size = 1 if single else more
        if rest % size:
            raise SettingError(message, f"{rest} classes are left, not a multiple of {size}. {FORMS}")
        sizes = [first] + [size] * (rest // size)
    elif sum(sizes) != n_classes:
        raise SettingError(message, f"{' + '.join(map(str, sizes))} is {sum(sizes)}: {FORMS}")
    bounds = [0, *itertools.accumulate(sizes)]
    return tuple(tuple(range(a + 1, b + 1)) for a, b in itertools.pairwise(bounds))


def ordered(split: Steps, order: Sequence[int] | int | None) -> Steps:
    """The split with classes in another order of arrival: a list of all class ids, or the seed of a shuffle.

    SettingError for a list that is not a permutation of the classes.
    """
    if order is None:
        return split
    n = sum(map(len, split))
    ids = (1 + np.random.default_rng(order).permutation(n)).tolist() if isinstance(order, int) else list(order)
    if sorted(ids) != list(range(1, n + 1)):
        twice = sorted({c for c in ids if ids.count(c) > 1})
        fault = f"holds {twice} twice" if twice else f"must hold each of 1..{n} once"
        raise SettingError(f"stream.order {ids} {fault}", "background is not a class")
    classes = iter(ids)
    return tuple(tuple(next(classes) for _ in step) for step in split)


def partition(presence: np.ndarray, classes: Sequence[int], seed: int = 0) -> np.ndarray:
    """Give each image to one of the classes it holds, so that the classes' sets are disjoint and of like size.

    After arXiv 2405.09858. Images that hold the fewest classes come first, and each goes to the class whose set is the
    smallest so far; the seed decides the order among images that hold as many, and which of two equal sets is taken.
    The result, (n,) int64, is the class of each image, 0 where it holds none of `classes` (all that are learnt). It
    depends on the data and the seed alone, not on the split or the order of arrival. `presence` as for `select`.
    """
    ids = np.sort(np.asarray(classes, dtype=np.int64))
    held = presence[:, ids]  # (n, classes)
    counts = held.sum(axis=1)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(held))
    rank = rng.permutation(len(ids)).tolist()  # which of two equal sets is taken
    owner = np.zeros(len(held), dtype=np.int64)
    sizes = [0] * len(ids)
    for image in shuffled[np.argsort(counts[shuffled], kind="stable")].tolist():
        if counts[image]:
            chosen = min(np.flatnonzero(held[image]).tolist(), key=lambda c: (sizes[c], rank[c]))
            sizes[chosen] += 1
            owner[image] = ids[chosen]
    return owner


def select(presence: np.ndarray, steps: Steps, setting: str = "overlapped", *, seed: int = 0) -> list[np.ndarray]:
    """Sorted indices of the training images of each step.

    overlapped: an image that holds at least one class of the step. disjoint: and no class of a later step.
    sequential: the images of disjoint (old classes stay labelled there; see `step_table`). partitioned: the images that
    `partition` gives to the classes of the step; each image is in one step, and may hold classes of later ones.

    `presence`, (n, 256) bool, says which ids each image holds; 0 and 255 are ignored.
    UnknownNameError for an unknown setting, SettingError for a step without an image.
    """
    check_name("setting", setting, SETTINGS)
    owner = partition(presence, [c for step in steps for c in step], seed) if setting == "partitioned" else None
    result = []
    for k, current in enumerate(steps):
        if owner is not None:
            chosen = np.isin(owner, current)
        else:
            chosen = presence[:, list(current)].any(axis=1)
            if setting != "overlapped":
                chosen &= ~_holds_later(presence, steps, k)
        indices = np.flatnonzero(chosen)
        if not len(indices):
            raise SettingError(
                f"step {k} (classes {', '.join(map(str, current))}) has no image in the {setting} setting",
                "use another split, setting or class order, or more data",
            )
        result.append(indices)
    return result


def later_classes(presence: np.ndarray, steps: Steps, chosen: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Number of images of each step that hold a class of a later step, hidden in background: 0 in `disjoint`."""
    return tuple(int(_holds_later(presence[indices], steps, k).sum()) for k, indices in enumerate(chosen))


def _holds_later(presence: np.ndarray, steps: Steps, step: int) -> np.ndarray:
    """(n,) bool: True for images that hold a class of a step after `step`."""
    later = [c for classes in steps[step + 1 :] for c in classes]
    return np.asarray(presence[:, later].any(axis=1))


def seen_images(presence: np.ndarray, steps: Steps) -> list[np.ndarray]:
    """Sorted indices, for each step, of the images that hold a class learnt by then: its test images in the field.

    Evaluation here uses all test images at every step; pixels of classes not learnt yet follow the label preset.
    """
    seen = itertools.accumulate(map(list, steps))
    return [np.flatnonzero(presence[:, classes].any(axis=1)) for classes in seen]


def check_name(kind: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not known."""
    if name not in known:
        raise UnknownNameError(kind, name, known)


def arrival(steps: Steps) -> dict[int, int]:
    """Class id -> label: classes are numbered 1.. in order of arrival; 0 stays background."""
    return {c: label for label, c in enumerate((c for step in steps for c in step), start=1)}


def step_table(steps: Steps, step: int, setting: str, labels: str) -> np.ndarray:
    """(256,) uint8: original id -> training target of a step.

    Classes of other steps become 0; `sequential` keeps the earlier ones. Void stays 255 (PLOP and successors) or,
    with `mib2020`, becomes 0 as in MiB's published training. UnknownNameError for an unknown setting or label preset.
    """
    check_name("setting", setting, SETTINGS)
    check_name("label preset", labels, LABELS)
    labelled = [c for s in (steps[: step + 1] if setting == "sequential" else steps[step : step + 1]) for c in s]
    number = arrival(steps)
    return lookup_table({c: number[c] for c in labelled}, fill=0, void=0 if labels == "mib2020" else VOID)


def test_table(steps: Steps) -> np.ndarray:
    """(256,) uint8: original id -> label for evaluation; every true class keeps its own, seen or not."""
    return lookup_table(arrival(steps), fill=VOID)


def lookup_table(mapping: Mapping[int, int], fill: int, *, void: int = VOID) -> np.ndarray:
    """(256,) uint8: label -> new label, `fill` where `mapping` has none; 0 stays, and 255 becomes `void`."""
    mapping = {0: 0, VOID: void, **mapping}
    for label in (*mapping, *mapping.values(), fill):
        if not 0 <= label <= 255:
            raise ValueError(f"label {label} is outside 0..255")
    table = np.full(256, fill, np.uint8)
    table[list(mapping)] = list(mapping.values())
    return table
