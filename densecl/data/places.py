"""Folders of data and of derived files, and lists of files in them."""

import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from densecl.errors import DataError
from densecl.files import expanded


def cache_folder() -> Path:
    """The folder of derived files: `DENSECL_CACHE`, else the user's cache folder."""
    return expanded(os.environ.get("DENSECL_CACHE") or (lambda: platformdirs.user_cache_dir("densecl")))


def data_folder() -> Path:
    """The folder of downloaded data: `DENSECL_DATA`, else the user's data folder."""
    return expanded(os.environ.get("DENSECL_DATA") or (lambda: platformdirs.user_data_dir("densecl")))


def names_in(folder: Path | str) -> set[str]:
    """Names of all files in a folder, none if it is absent; far quicker than asking for each of ten thousand."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def by_stem(folder: Path, *suffixes: str) -> dict[str, str]:
    """Names of the files in a folder that end so, in capitals too, by what stands before; a later suffix wins."""
    names = sorted(names_in(folder))
    return {name[: -len(suffix)]: name for suffix in suffixes for name in names if name.lower().endswith(suffix)}


def size_of(file: str | os.PathLike[str]) -> int:
    """Bytes of a file; -1 where it is missing."""
    return os.stat(file).st_size if os.path.exists(file) else -1  # noqa: PTH110, PTH116


def check_files(kind: str, files: Sequence[str], hint: str) -> None:
    """Refuse paths of absent files; `kind` names them, such as "masks of train.txt"."""
    parts = [path.rpartition(os.sep) for path in files]
    there = {folder: names_in(folder or ".") for folder in {folder for folder, _, _ in parts}}
    missing = [(folder, name) for folder, _, name in parts if name not in there[folder]]
    if not missing:
        return
    folder = Path(missing[0][0])
    if not folder.is_dir():
        absent = next(p for p in (*reversed(folder.parents), folder) if not p.is_dir())
        raise DataError(f"the folder {absent} is missing", hint)
    shown = ", ".join(name for _, name in missing[:3]) + (", ..." if len(missing) > 3 else "")
    raise DataError(f"{len(missing)} of {len(files)} {kind} are missing in {folder}: {shown}", hint)


def read_words(list_file: Path, hint: str) -> list[list[str]]:
    """Words of each line of a list, without empty lines; DataError if it is missing, unreadable or empty."""
    try:
        lines = [line.split() for line in list_file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise DataError(f"the list {list_file} is missing", hint) from error
    except UnicodeDecodeError as error:
        raise DataError(f"the list {list_file} is no text in UTF-8", "save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"the list {list_file} cannot be read: {error.strerror}", hint) from error
    if not lines:
        raise DataError(f"the list {list_file} is empty", hint)
    return lines
