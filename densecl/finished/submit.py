"""`densecl submit`: a bundle of finished runs, to be sent to others."""

import contextlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from densecl import __version__
from densecl.errors import RecordError, SettingError
from densecl.files import atomic_path, write_error
from densecl.records import bundle
from densecl.records.community import code_is_missing, record_faults
from densecl.records.record import FILE_NAME as RECORD
from densecl.records.record import Found, find_records
from densecl.settings.faults import first_fault

ZIP = ".zip"
NO_TIME = (1980, 1, 1, 0, 0, 0)  # of the files of a zip, so that equal bundles are equal files


class Sent(NamedTuple):
    """A bundle that was written."""

    path: Path
    runs: int
    size: int  # bytes of its files
    edited: tuple[str, ...]  # records that were changed after their run


def submit(
    runs: Sequence[Path],
    output: Path,
    *,
    author: str,
    name: str | None = None,
    paper: str | None = None,
    code: str | None = None,
    note: str | None = None,
) -> Sent:
    """Write the records and pictures of runs, and of all runs below folders, as a folder or, if so named, a zip file.

    Raises:
        RecordError: a folder without a run, a record that cannot be read or sent, or one run twice.
        SettingError: the name or a text does not do.
        RunError: `output` is there already, or cannot be written.
    """
    found = [run for place in runs for run in _runs(place)]
    folders: dict[str, Found] = {}
    for run in found:
        faults = record_faults(run.record)
        if faults:
            raise RecordError(f"{run.path} {faults[0]}")
        place = bundle.run_folder(run.record)
        if place in folders:
            raise RecordError(f"{folders[place].path.parent} and {run.path.parent} are one run", "name one of them")
        if bundle.RUN.fullmatch(place) is None:
            raise RecordError(f"{run.path} has a hash or a seed that names no folder: {place}")
        folders[place] = run
    if code is None and (path := next((r.path for r in found if code_is_missing(r.record, None)), None)) is not None:
        raise SettingError(f"{path} is of a class of your own", "say where its code is: --code")
    files = {f"{place}/{name_of}": path for place, run in folders.items() for name_of, path in _files(run.path)}
    edited = [f"{place}/{RECORD}" for place, run in folders.items() if run.record.edited]
    own = output.name.removesuffix(ZIP) if name is None else name
    try:
        manifest = bundle.Manifest(
            name=own,
            author=author,
            paper=paper,
            code=code,
            note=note,
            densecl=__version__,
            edited=edited,
            files={name_of: bundle.sha256(path) for name_of, path in sorted(files.items())},
        )
    except ValidationError as error:
        hint = "a name has small letters, digits and hyphens; texts have 1 to 200 characters"
        raise SettingError(f"the bundle {own}: {first_fault(error, bundle.Manifest)}", hint) from error
    _write(output, manifest, files)
    return Sent(output, len(folders), sum(path.stat().st_size for path in files.values()), tuple(edited))


def _runs(place: Path) -> list[Found]:
    """The run in a folder, or all runs below it."""
    if not place.exists():
        raise RecordError(f"the folder {place} does not exist", "name the folders of runs")
    found, faults = find_records(place)
    if faults:
        raise faults[0]
    if not found:
        raise RecordError(f"{place} holds no {RECORD}", "name the folder of a run")
    return found


def _files(record: Path) -> list[tuple[str, Path]]:
    """The record and the pictures beside it, by their names in a run's folder."""
    pictures = sorted((record.parent / "pictures").glob("*"))
    named = [path for path in pictures if path.is_file() and re.fullmatch(bundle.PICTURES, path.name, re.ASCII)]
    return [(RECORD, record), *((f"pictures/{path.name}", path) for path in named)]


def _write(output: Path, manifest: bundle.Manifest, files: dict[str, Path]) -> None:
    """Write the bundle whole or not at all."""
    if output.exists():
        raise RecordError(f"{output} is there already", "name another with --output")
    if output.suffix == ZIP:
        with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_entry(bundle.FILE_NAME), manifest.text)
            for name in manifest.files:
                archive.writestr(_entry(name), files[name].read_bytes())
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise write_error(output, error) from error
    try:
        temporary.chmod(0o755)
        (temporary / bundle.FILE_NAME).write_text(manifest.text, encoding="utf-8")
        for name in manifest.files:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[name], temporary / name)
        temporary.replace(output)
    except OSError as error:
        raise write_error(output, error) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after the renaming
            shutil.rmtree(temporary)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, NO_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
