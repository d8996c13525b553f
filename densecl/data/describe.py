"""Propose a recipe for a folder of images and masks from what is seen in it."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densecl.data.dataset import VOID, Progress
from densecl.data.decode import SUFFIXES, image_size, read_values
from densecl.data.legend import MOST, colour_text
from densecl.errors import DataError

SPLITS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
WORDS = sorted((word for words in SPLITS.values() for word in words), key=len, reverse=True)
PART = re.compile(rf"({'|'.join(WORDS)})(?![a-z])|({'|'.join(WORDS)})(?=annot|mask|label|image|gt)", re.IGNORECASE)
LOOKED_AT = 400  # masks whose values are counted
TRIED = 3  # files of a folder that decide whether it holds masks
WHITE, CREAM = 0xFFFFFF, 0xE0E0C0  # the colours that often mean void; CREAM is Pascal VOC's


class Group(NamedTuple):
    """Image files of one kind in folders that differ by the split alone."""

    pattern: str  # such as images/{split}
    ending: str  # .jpg
    files: dict[str, list[str]]  # by split, "" where there is none: paths below the pattern's folder
    masks: bool


class Found(NamedTuple):
    """Contents of a folder as keys of `[data]`, and remarks."""

    keys: dict[str, object]
    size: tuple[int, int]  # (height, width) of the first image
    remarks: list[str]


def describe(folder: Path, families: Iterable[str] = (), progress: Progress | None = None) -> str:
    """The text of a recipe for `densecl run --catalogue`; `families` are names that are taken.

    DataError if there are no images, no masks, or no masks of classes.
    """
    root = folder.expanduser().absolute()
    found = look(root, progress)
    names = found.keys["classes"]
    assert isinstance(names, list)
    if len(names) < 2:
        raise DataError(f"the masks of {root} have one class beside background", "a stream needs two or more")
    family = re.sub(r"[^a-z]+", "-", root.name.lower()).strip("-") or "own"
    family = f"own-{family}" if family in families else family
    half = (len(names) + 1) // 2
    splits = dict.fromkeys([f"{len(names) - 1}-1", f"{half}-{len(names) - half}", f"{half}-1"])
    side = max(32, min(512, min(found.size) // 32 * 32))
    lines = [
        f"# Proposed by `densecl data describe {root}`: name the classes, and check each line.",
        *(f"# {remark}" for remark in found.remarks),
        f"family = {_toml(family)}",
        f"summary = {_toml(f'images of {root.name}, classes that arrive over time')}",
        f"splits = {_toml(list(splits))}",
        'backbone = "unet(width=16)"',
        "",
        "[data]",
        'name = "masks"',
        f"root = {_toml(str(root))}",
        *(f"{key} = {_toml(value)}" for key, value in found.keys.items()),
        "",
        "[training]",
        "epochs = 30",
        "batch = 8",
        'optimizer = "adamw"',
        "lr = 0.001",
        f"crop = {side}",
        "",
        "[evaluation]",
        f"size = {side}",
    ]
    return "\n".join(lines) + "\n"


def look(root: Path, progress: Progress | None = None) -> Found:
    """Find images, their masks, splits, and the ids or colours in a folder."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", "name the folder of a data set")
    groups = list(_groups(root))
    images, masks = ([group for group in groups if group.masks is kind] for kind in (False, True))
    if not images or not masks:
        absent = "images" if not images else "masks"
        kinds = ", ".join(f"{group.pattern}/*{group.ending}" for group in groups[:5])
        raise DataError(f"no {absent} are seen in {root}{f' ({kinds})' if kinds else ''}", "name their folder's parent")
    pairs = [(a, b, s) for a in images for b in masks if (s := _suffixes(a, b)) is not None]
    if not pairs:
        names = f"{images[0].pattern}/{_first(images[0])} and {masks[0].pattern}/{_first(masks[0])}"
        raise DataError(f"no masks of {root} have the names of its images: {names}", "give them the same names")
    image, mask, (image_suffix, mask_suffix) = max(pairs, key=_rank)
    others = dict.fromkeys(f"{other.pattern}/*{other.ending}" for _, other, _ in pairs if other is not mask)
    remarks = [f"also there: {other}" for other in others]
    keys: dict[str, object] = {"images": image.pattern, "masks": mask.pattern}
    suffixes = {"image_suffix": image_suffix, "mask_suffix": mask_suffix}
    keys |= {key: suffix for key, suffix in suffixes.items() if suffix}
    split = _splits(root, image, image_suffix)
    remarks += ["no lists or folders of splits are seen: each fifth image is a test image"] if "every" in split else []
    keys |= split
    paths = [
        str(root / mask.pattern.replace("{split}", part) / name) for part, names in mask.files.items() for name in names
    ]
    values, colours = _values(paths, progress)
    if len(paths) > LOOKED_AT:
        remarks.append(f"{LOOKED_AT} of {len(paths)} masks were looked at")
    classes, more = _classes(root, values, colours)
    first = next(part for part, names in image.files.items() if names)
    size = image_size(root / image.pattern.replace("{split}", first) / image.files[first][0])
    return Found({**classes, **keys}, size, remarks + more)


def _rank(pair: tuple[Group, Group, tuple[str, str]]) -> tuple[int, bool, int]:
    """Most files first, then photographs, then the shortest name of masks."""
    images, masks, _ = pair
    return _count(images), images.ending in (".jpg", ".jpeg"), -len(masks.pattern)


def _groups(root: Path) -> Iterator[Group]:
    """The image files of a folder, by folder and suffix, folders of splits taken together."""
    files: dict[tuple[str, str], dict[str, list[str]]] = {}
    for place, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        parts = Path(place).relative_to(root).parts
        at = next((k for k, part in enumerate(parts) if PART.match(part)), None)
        split, inside, pattern = "", "", parts
        if at is not None:
            matched = PART.match(parts[at])
            assert matched is not None
            split = matched[0]
            pattern = (*parts[:at], parts[at].replace(split, "{split}", 1), *parts[at + 1 :])
            if len(parts) == at + 2 and _differs(root.joinpath(*parts[:at]), parts[-1]):
                inside, pattern = f"{parts[-1]}/", pattern[:-1]
        for ending in SUFFIXES:
            own = sorted(n for n in names if n.lower().endswith(ending) and not n.startswith("."))
            if own:
                group = files.setdefault(("/".join(pattern) or ".", ending), {})
                group.setdefault(split, []).extend(inside + name for name in own)
    for (pattern, ending), by_split in files.items():
        part, names = next(iter(by_split.items()))
        tried = [root / pattern.replace("{split}", part) / name for name in names[:: max(1, len(names) // TRIED)]]
        yield Group(pattern, ending, by_split, all(map(_is_mask, tried[:TRIED])))


def _differs(folder: Path, name: str) -> bool:
    """True if some split in a folder has no folder of this name, which is then a part of it, such as a city."""
    splits = [path for path in folder.iterdir() if path.is_dir() and PART.match(path.name)]
    return not all((path / name).is_dir() for path in splits)


def _is_mask(path: Path) -> bool:
    """True for few values in long runs."""
    if path.suffix.lower() in (".jpg", ".jpeg", ".webp"):
        return False
    try:
        values = read_values(path, colours=True)
    except DataError:
        try:
            values = read_values(path, colours=False)
        except DataError:
            return False
    runs = (values[:, 1:] == values[:, :-1]).mean() if values.shape[1] > 1 else 0.0
    return bool(runs > 0.7 and len(np.unique(values)) <= MOST + 2)


def _suffixes(images: Group, masks: Group) -> tuple[str, str] | None:
    """Find the endings of names of images and of masks after their common part; None if they do not go together."""
    if set(images.files) != set(masks.files):
        return None
    a = {f"{part}/{name}" for part, names in images.files.items() for name in names}
    b = {f"{part}/{name}" for part, names in masks.files.items() for name in names}
    first = min(a)
    best = max(b, key=lambda name: len(os.path.commonprefix([first, name])))  # noqa: RUF071
    common = len(os.path.commonprefix([first, best]))  # noqa: RUF071
    plain = os.path.splitext(first)[0] == os.path.splitext(best)[0]  # noqa: PTH122 - the whole path
    endings = (images.ending, masks.ending) if plain else (first[common:], best[common:])
    stems = [
        {name[: -len(ending)] for name in names if name.lower().endswith(ending.lower())}
        for names, ending in ((a, endings[0]), (b, endings[1]))
    ]
    if len(stems[0] & stems[1]) < 0.9 * min(len(a), len(b)):
        return None
    same_place = images.pattern == masks.pattern
    return endings if same_place or not plain else ("", "")


def _splits(root: Path, images: Group, suffix: str) -> dict[str, object]:
    """The keys `train`, `val`, `test`, or `every`."""
    lists = {path: path.stem.lower() for path in sorted(root.rglob("*.txt")) if len(path.relative_to(root).parts) <= 3}
    ids = {name[: -len(suffix or images.ending)] for names in images.files.values() for name in names}
    stems = {Path(name).name for name in ids} | ids
    known = {path: word for path, word in lists.items() if PART.match(word) and _lists(path, stems)}
    chosen: dict[str, object] = {}
    for path, word in known.items():
        kind = "val" if word.startswith("val") else next(k for k, words in SPLITS.items() if word.startswith(words))
        if word in (*SPLITS["train"], *SPLITS["test"]):
            chosen.setdefault(kind, path.relative_to(root).as_posix())
    folders = {part: part for part in images.files if part}
    if "train" not in chosen and folders:
        chosen = {}
        for part in folders:
            kind = "val" if part.lower().startswith("val") else "train" if part.lower().startswith("train") else "test"
            chosen[kind] = part
    if "train" not in chosen or not ({"val", "test"} & chosen.keys()):
        return {"every": 5}
    if "test" not in chosen:
        chosen["test"] = chosen.pop("val")
    return chosen


def _lists(path: Path, stems: set[str]) -> bool:
    """True if the first lines of a text name images."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")[:20]
    except (OSError, UnicodeDecodeError):
        return False
    words = [line.split()[0] for line in lines if line.strip()]
    named = [word in stems or Path(word).stem in stems or Path(word).name in stems for word in words]
    return bool(named) and sum(named) >= 0.5 * len(named)


def _values(paths: Sequence[str], progress: Progress | None) -> tuple[Counter[int], bool]:
    """The ids or colours that occur in masks, with the number of masks of each; True if they are colours."""
    some = paths[:: -(-len(paths) // LOOKED_AT)]
    seen: list[Counter[int]] = [Counter(), Counter()]
    colours = False
    for number, path in enumerate(some, start=1):
        if not colours:
            try:
                seen[0].update(np.unique(read_values(path, colours=False)).tolist())
            except DataError:  # in colour
                colours, seen[1] = True, Counter()
                for earlier in some[: number - 1]:
                    seen[1].update(np.unique(read_values(earlier, colours=True)).tolist())
        if colours:
            seen[1].update(np.unique(read_values(path, colours=True)).tolist())
        if len(seen[colours]) > MOST + 2:
            raise DataError(f"the masks of {Path(path).parent} hold more than {MOST} values", "they are not of classes")
        if progress is not None:
            progress(number, len(some))
    return seen[colours], colours


def _classes(root: Path, values: Mapping[int, int], colours: bool) -> tuple[dict[str, object], list[str]]:
    """The keys of classes, ids or colours, and remarks."""
    void = [value for value in ((WHITE, CREAM) if colours else (VOID,)) if value in values]
    own = [value for value in sorted(values) if value not in (0, *void)]
    names = _names(root, own, colours)
    shown = colour_text if colours else str
    keys: dict[str, object] = {"classes": [names.get(value, f"class{shown(value).lstrip('#')}") for value in own]}
    if colours:
        keys["colours"] = list(map(colour_text, own))
    elif own != list(range(1, len(own) + 1)):
        keys["ids"] = own
    if 0 not in values:
        keys["background"] = False
    if colours and void:
        keys["ignore"] = list(map(colour_text, void))
    counts = [f"{names.get(value, 'class')} {shown(value)} in {values[value]}" for value in own]
    remarks = [f"masks with each: {', '.join(counts)}"]
    remarks += [f"taken for void: {', '.join(map(shown, void))}"] if void else []
    remarks += ["taken for background: 0" if not colours else "taken for background: #000000"] if 0 in values else []
    return keys, remarks


def _names(root: Path, values: Sequence[int], colours: bool) -> dict[int, str]:
    """Names of ids or colours out of a text of classes, if there is one that has them all."""
    for path in sorted(itertools.chain(root.glob("*.txt"), root.glob("*.csv"))):
        if not re.search(r"class|label|colou?r", path.stem, re.IGNORECASE):
            continue
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError):
            continue
        names: dict[int, str] = {}
        for line in lines:
            words = [word.strip() for word in re.split(r"[,;\t]|(?<=\d)\s+|\s+(?=\d)", line) if word.strip()]
            numbers = [int(word) for word in words if word.isdecimal()]
            text = [word for word in words if not word.isdecimal()]
            if colours and len(numbers) == 3 and len(text) == 1 and max(numbers) < 256:
                names[(numbers[0] << 16) + (numbers[1] << 8) + numbers[2]] = text[0]
            elif not colours and len(numbers) == 1 and len(text) == 1:
                names[numbers[0]] = text[0].strip(": ")
        if names and set(values) <= names.keys() and len({names[value] for value in values}) == len(values):
            return {value: names[value] for value in values}
        if not names and not colours and len(lines) == len(values) and max(map(len, lines)) < 40:
            return dict(zip(values, lines, strict=True))
    return {}


def _first(group: Group) -> str:
    return next(iter(group.files.values()))[0]


def _count(group: Group) -> int:
    return sum(map(len, group.files.values()))


def _toml(value: object) -> str:
    """A value in TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'
    return str(value)
