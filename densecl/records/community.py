"""Check bundles that people sent: names, hashes, runs that are there twice, honest fields, and that nothing is gone.

`index.json` in their folder lists each bundle with the SHA-256 of its `bundle.json`, which lists the SHA-256 of each of
its files. A bundle that the index has must be there as it was; the index of an earlier state must be part of today's.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from densecl.errors import RecordError
from densecl.files import write_error, write_text
from densecl.records import bundle
from densecl.records.layout import UPPER_BOUND, main_name
from densecl.records.record import APART, Record, read_record
from densecl.records.record import FILE_NAME as RECORD
from densecl.settings.faults import one_line, shown

INDEX = "index.json"
BESIDE = (INDEX, "README.md", APART)  # files beside the bundles
DECLARED = ("memory", "extra_data", "checkpoint", "known_classes", "told_step")  # by the authors of foreign predictions


class Checked(NamedTuple):
    """Counts of what was looked at, and all that is wrong with it."""

    faults: tuple[str, ...]
    bundles: int
    runs: int
    marked: tuple[str, ...]  # records that were changed after their run, and say so


class Run(NamedTuple):
    """A run of a bundle."""

    place: Path
    record: Record


def record_faults(record: Record) -> list[str]:
    """Reasons why a record is not sent: it is not finished, or lacks what others need to trust it."""
    done, planned = len(record.steps), len(record.planned_steps)
    faults = [] if record.status == "finished" else [f"is not finished: its status is {record.status}"]
    if record.status == "finished" and done < planned and main_name(record.strategy) != UPPER_BOUND:
        faults.append(f"has {done} of {planned} steps")
    data = record.settings.get("data")
    if isinstance(data, dict) and data.get("validation"):
        faults.append("was scored on held-out training images, not on the test images")
    last = record.steps[-1].evaluations if record.steps else []
    if not last:
        faults.append("has no scores of its last step")
    if not record.tasks and any(one.confusion is None for one in last):
        faults.append("has no confusion matrix, from which its scores follow")
    missing = [key for key in ("torch", "images") if not record.environment.get(key)] if record.foreign is None else []
    faults += [f"does not say its {key}" for key in missing]
    if record.foreign is not None:
        declared = record.foreign.declared.model_dump()
        faults += [f"does not declare its {key.replace('_', ' ')}" for key in DECLARED if declared[key] is None]
    return faults


def code_is_missing(record: Record, code: str | None) -> bool:
    """True if a run is of somebody's own class and nobody says where its code is."""
    declared = record.foreign.declared.code if record.foreign is not None else None
    own = record.foreign is not None or bool(record.environment.get("sources"))
    return own and not (code or declared)


def check_bundle(path: Path) -> Checked:
    """Check one bundle, a folder or a zip file."""
    with bundle.opened(path) as folder:
        return _alone(folder, path)[0]


def _alone(folder: Path, path: Path) -> tuple[Checked, list[Run]]:
    """Check the folder of a bundle, which faults name as `path`; and its runs."""
    faults, runs, marked = _bundle_faults(folder)
    faults += _doubled(runs)
    named = tuple(fault.replace(str(folder), str(path)) for fault in faults)
    return Checked(named, 1, len(runs), tuple(marked)), runs


def check_all(folder: Path, before: Path | None = None) -> Checked:
    """Check a folder of bundles against its index, and against the index of an earlier state.

    Raises:
        RecordError: the folder, or an index, cannot be read.
    """
    return _all(folder, before)[0]


def _all(folder: Path, before: Path | None = None) -> tuple[Checked, list[Run]]:
    """Do the same, and return the runs too."""
    if not folder.is_dir():
        raise RecordError(f"the folder {folder} does not exist", "name the folder of bundles")
    index = read_index(folder / INDEX)
    faults, runs, marked, names = [], [], [], set()
    for place in sorted(folder.iterdir()):
        if place.name in BESIDE:
            continue
        if not place.is_dir() or place.is_symlink():
            faults.append(f"{place} is no bundle")
            continue
        names.add(place.name)
        own, more, changed = _bundle_faults(place, place.name)
        faults, runs, marked = faults + own, runs + more, marked + changed
        if place.name not in index:
            faults.append(f"{place} is not in {INDEX}: add it with --add")
        elif (place / bundle.FILE_NAME).is_file() and bundle.sha256(place / bundle.FILE_NAME) != index[place.name]:
            faults.append(f"{place / bundle.FILE_NAME} is not the file that {INDEX} has: its SHA-256 differs")
    faults += [f"{folder / name} is gone, and {INDEX} has it" for name in sorted(index.keys() - names)]
    if before is not None:
        if not before.exists():
            raise RecordError(f"{before} does not exist", "--before takes a folder of bundles, or its index.json")
        earlier = read_index(before / INDEX if before.is_dir() else before)
        faults += [
            f"{folder / INDEX} has {name} no more, or changed: {before} had it"
            for name, digest in earlier.items()
            if index.get(name) != digest
        ]
    return Checked((*faults, *_doubled(runs)), len(names), len(runs), tuple(marked)), runs


def add(folder: Path, path: Path) -> Checked:
    """Check a bundle and, if nothing is wrong with it and with the folder, put it there and into the index.

    Raises:
        RecordError: see `check_all`; or there is a bundle of that name.
    """
    whole, there = _all(folder)
    if whole.faults:
        return whole
    with bundle.opened(path) as source:
        alone, own = _alone(source, path)
        if alone.faults:
            return alone
        manifest = bundle.read_manifest(source)
        place = folder / manifest.name
        if place.exists():
            raise RecordError(f"{folder} has a bundle {manifest.name} already", "send it under another name")
        if doubled := _doubled([*there, *own]):
            return alone._replace(faults=tuple(text.replace(str(source), str(path)) for text in doubled))
        try:
            with tempfile.TemporaryDirectory(prefix=".adding-", dir=folder.parent) as temporary:
                made = Path(temporary) / manifest.name
                for name in (bundle.FILE_NAME, *manifest.files):
                    (made / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name, made / name)
                made.replace(place)
        except OSError as error:
            raise write_error(place, error) from error
    index = read_index(folder / INDEX) | {manifest.name: bundle.sha256(place / bundle.FILE_NAME)}
    write_text(folder / INDEX, json.dumps(dict(sorted(index.items())), indent=1) + "\n")
    return alone


def read_index(path: Path) -> dict[str, str]:
    """Name and SHA-256 of each bundle; empty where there is no index yet.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        index = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(index, dict) or not all(isinstance(value, str) for value in index.values()):
        raise RecordError(f"{path} is {shown(index)}, and must hold names of bundles and their SHA-256")
    return index


def _bundle_faults(folder: Path, name: str | None = None) -> tuple[list[str], list[Run], list[str]]:
    """List all that is wrong with a bundle, its runs, and the records that are marked as changed."""
    try:
        manifest = bundle.read_manifest(folder)
    except RecordError as error:
        return [str(error)], [], []
    faults = list(bundle.file_faults(folder, manifest))
    if name is not None and manifest.name != name:
        faults.append(f"{folder / bundle.FILE_NAME} has the name {manifest.name}, and its folder {name}")
    runs: list[Run] = []
    marked: list[str] = []
    records = [path for path in manifest.files if path.endswith(f"/{RECORD}") and bundle.PATH.fullmatch(path)]
    lone = {path.split("/pictures/")[0] for path in manifest.files if "/pictures/" in path}
    faults += [
        f"{folder / run} has pictures and no {RECORD}" for run in sorted(lone) if f"{run}/{RECORD}" not in records
    ]
    if not records:
        faults.append(f"{folder} holds no run")
    for path in records:
        place = folder / path
        if not place.is_file() or place.stat().st_size > bundle.LARGEST:
            continue  # told above
        try:
            record = read_record(place)
        except RecordError as error:
            faults.append(str(error))
            continue
        runs.append(Run(place.parent, record))
        faults += [f"{place} {fault}" for fault in _own_faults(path, record, manifest)]
        marked += [str(place)] if record.edited and path in manifest.edited else []
    return faults, runs, marked


def _own_faults(path: str, record: Record, manifest: bundle.Manifest) -> Iterator[str]:
    """Name all that is wrong with a record in its bundle."""
    yield from record_faults(record)
    if f"{bundle.run_folder(record)}/{RECORD}" != path:
        yield f"belongs into {bundle.run_folder(record)}"
    if record.edited and path not in manifest.edited:
        yield "was changed after the run, and the bundle does not say so"
    if code_is_missing(record, manifest.code):
        yield "is of a class of somebody's own, and nobody says where its code is"


def _doubled(runs: Sequence[Run]) -> list[str]:
    """Runs that are there twice: of one hash and seed, or with the same scores after all steps."""
    first: dict[object, Run] = {}
    faults = []
    for run in runs:
        record = run.record
        keys = [("run", record.benchmark, record.hash, record.seed)]
        scores = [step.model_dump(include={"seconds", "evaluations"}) for step in record.steps]
        keys.append(("scores", record.benchmark, json.dumps(scores, sort_keys=True), len(scores)))
        other = next((first[key] for key in keys if key in first), None)
        if other is not None:
            faults.append(f"{run.place} is the run of {other.place}")
        for key in keys:
            first.setdefault(key, run)
    return faults
