"""A bundle: finished runs that somebody sends, who sends them, and a SHA-256 of each file.

It is a folder, or a zip file of it: `bundle.json`, and of each run `BENCHMARK/METHOD/BACKBONE/sSEED-HASH/result.json`
with the files of its `pictures/`. Bundles come from anywhere: nothing of them is executed, their paths follow one form,
and no more is read than the limits below.
"""

import contextlib
import hashlib
import json
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densecl.errors import RecordError
from densecl.records.foreign import Text
from densecl.records.layout import method_name, run_parts
from densecl.records.record import FILE_NAME as RECORD
from densecl.records.record import Record
from densecl.settings.faults import first_fault, one_line

SCHEMA = 1
FILE_NAME = "bundle.json"
NAME = r"[a-z0-9][a-z0-9-]{0,38}[a-z0-9]"
FOLDERS = r"[\w+=][\w.+=-]*"
PICTURES = r"images\.png|truth\.png|step\d{1,4}(-[\w-]+)?\.png|pictures\.json"
RUN = re.compile(rf"({FOLDERS}/){{3}}s\d+-[0-9a-f]+", re.ASCII)
PATH = re.compile(rf"{RUN.pattern}/({RECORD}|pictures/({PICTURES}))", re.ASCII)
MOST = 5000  # files
LARGEST = 32 * 2**20  # bytes of a file
WHOLE = 256 * 2**20  # bytes of all files
LEVELS = 6  # folders between a file and its bundle

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """The content of `bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)

    schema_version: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)] = SCHEMA
    name: Annotated[str, Field(pattern=rf"^{NAME}$")]
    author: Text
    paper: Text | None = None
    code: Text | None = None  # where the method's code is, and its version
    note: Text | None = None
    densecl: Text
    edited: list[str] = []  # records that were changed after their run
    files: dict[str, Digest]

    @property
    def text(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n"


def run_folder(record: Record) -> str:
    """The folder of a run in a bundle, which follows from its record as that of `densecl run` does from its plan."""
    backbone, values = record.backbone.rpartition(":")[2], record.settings.get("backbone_values")
    encoder = values.get("encoder") if isinstance(values, dict) else None
    method = "+".join(name.rpartition(":")[2] for name in method_name(record.strategy).split("+"))
    *parts, last = run_parts(record.benchmark, method, backbone, encoder, record.seed, record.hash)
    return "/".join((*map(_plain, parts), last))


def _plain(part: str) -> str:
    """A name as that of a folder."""
    return re.sub(r"^[.-]", "_", re.sub(r"[^\w.+=-]", "_", part, flags=re.ASCII)) or "_"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder of a bundle; that of a zip file is a temporary one, with only what the limits allow.

    Raises:
        RecordError: it is neither, it is damaged, or it holds what no bundle has.
    """
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="densecl-bundle-") as name:
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(archive, Path(name), path)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise RecordError(f"{path} is damaged or no bundle: {one_line(error)}", "send it again") from error
        yield Path(name)


def _extract(archive: zipfile.ZipFile, folder: Path, path: Path) -> None:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MOST:
        raise RecordError(f"{path} holds {len(entries)} files, and a bundle has {MOST} at most")
    seen: set[str] = set()
    left = WHOLE
    for entry in entries:
        name = entry.filename
        if name != FILE_NAME and PATH.fullmatch(name) is None:
            raise RecordError(f"{path} holds {name!r}, which no bundle has")
        if name in seen:
            raise RecordError(f"{path} holds {name} twice")
        seen.add(name)
        with archive.open(entry) as file:
            content = file.read(min(LARGEST, left) + 1)  # whatever size the entry states
        left -= len(content)
        if len(content) > LARGEST or left < 0:
            raise RecordError(f"{path}: {name} is too large: {LARGEST >> 20} MiB a file, {WHOLE >> 20} MiB together")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_manifest(folder: Path) -> Manifest:
    """Read and check `bundle.json`.

    Raises:
        RecordError: naming the file and its first fault.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise RecordError(f"{path} is too large")
        return Manifest.model_validate(json.loads(content), strict=True)
    except FileNotFoundError as error:
        raise RecordError(f"{folder} is no bundle: it has no {FILE_NAME}", "densecl submit makes one") from error
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        raise RecordError(f"{path}: {first_fault(error, Manifest)}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not JSON: {one_line(error)}") from error


def file_faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Differences between the files of a bundle's folder and its manifest."""
    there: set[str] = set()
    for count, path in enumerate(sorted(folder.rglob("*"))):
        name = path.relative_to(folder).as_posix()
        if count > 4 * MOST:
            yield f"{folder} holds too many files"
            return
        if path.is_symlink():
            yield f"{path} is a link, which no bundle has"
        elif path.is_file() and name != FILE_NAME:
            there.add(name)
    for name in sorted(there - manifest.files.keys()):
        yield f"{folder / name} is not in {FILE_NAME}"
    total = 0
    for name, digest in manifest.files.items():
        if PATH.fullmatch(name) is None:
            yield f"{folder / FILE_NAME} lists {name!r}, which no bundle has"
        elif name not in there:
            yield f"{folder / name} is missing"
        elif (size := (folder / name).stat().st_size) > LARGEST or (total := total + size) > WHOLE:
            yield f"{folder / name} is too large: {LARGEST >> 20} MiB a file, {WHOLE >> 20} MiB together"
        elif sha256(folder / name) != digest:
            yield f"{folder / name} is not the file that was sent: its SHA-256 differs"


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_of(record: Path) -> str:
    """The name of the bundle that a record lies in; empty for none."""
    folders = list(record.parents)[:LEVELS]
    return next((folder.name for folder in folders if (folder / FILE_NAME).is_file()), "")
