"""Folders of data and of derived files, and how a data set is found in them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs

from densecl.errors import DataError


def cache_folder() -> Path:
    """The folder of derived files: `DENSECL_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("DENSECL_CACHE") or platformdirs.user_cache_dir("densecl")).expanduser()


def data_folder() -> Path:
    """The folder of downloaded data: `DENSECL_DATA`, else the user's data folder."""
    return Path(os.environ.get("DENSECL_DATA") or platformdirs.user_data_dir("densecl")).expanduser()


def search(folders: Sequence[str], find: Callable[[Path], Path | None], root: Path | None) -> Path | None:
    """Find a data set in `root`, else in `data_folder()`: there, in its subfolders `folders`, in the only other one.

    Args:
        folders: usual names of the data set's folder.
        find: gives the data set's own folder inside a folder, or None.
        root: the folder that the user named.

    Raises:
        DataError: several other subfolders have its layout.
    """
    base = Path(root or data_folder()).expanduser()
    for place in (base, *(base / name for name in folders)):
        if (own := find(place)) is not None:
            return own
    subfolders = sorted(p for p in base.iterdir() if p.is_dir() and p.name[0] != ".") if base.is_dir() else []
    others = [own for place in subfolders if (own := find(place)) is not None]
    if len(others) > 1:
        names = ", ".join(map(str, others))
        raise DataError(f"several folders of {base} have this data set's layout: {names}", "name one with --data")
    return others[0] if others else None


def not_found(folders: Sequence[str], root: Path | None, hint: str) -> DataError:
    """The error for a data set that `search` did not find: the places, and how to get it."""
    base, given = Path(root or data_folder()).expanduser(), ""
    if root is None:
        given = " (from DENSECL_DATA)" if os.environ.get("DENSECL_DATA") else " (the default place)"
    state = "looked at it and at its subfolders" if base.is_dir() else "there is no such folder"
    return DataError(f"no {folders[0]} data in {base}{given}: {state} ({', '.join(folders)})", hint)


def names_in(folder: Path | str) -> set[str]:
    """Names of all files in a folder, none if it is absent; far quicker than asking for each of ten thousand."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def check_files(kind: str, files: Sequence[str], hint: str) -> None:
    """Refuse paths of absent files; `kind` names them, such as "masks of train.txt".

    Raises:
        DataError: naming the missing folder, or the number of files and the first three.
    """
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
    """Words of each line of a list, without empty lines.

    Raises:
        DataError: the list is missing, unreadable or empty.
    """
    try:
        lines = [line.split() for line in list_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise DataError(f"the list {list_file} is missing", hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {list_file} cannot be read", hint) from error
    if not lines:
        raise DataError(f"the list {list_file} is empty", hint)
    return lines
