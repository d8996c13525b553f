"""Where data lies: the folder asked for, `DENSECL_DATA` or the user's data folder; and where derived files go."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from densecl.errors import DataError


class NotFoundError(DataError):
    """A data set that is in none of the places looked at."""


def cache_folder() -> Path:
    """Where derived files go: `DENSECL_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("DENSECL_CACHE") or platformdirs.user_cache_dir("densecl")).expanduser()


def data_folder() -> Path:
    """Where downloaded data goes: `DENSECL_DATA`, else the user's data folder."""
    return Path(os.environ.get("DENSECL_DATA") or platformdirs.user_data_dir("densecl")).expanduser()


def find_folder(folders: tuple[str, ...], find: Callable[[Path], Path | None], root: Path | None, hint: str) -> Path:
    """The folder of a data set.

    Looked at are `root`, or `DENSECL_DATA`, or the user's data folder: the folder itself, then its subfolders
    `folders`, then any other subfolder, if just one has the layout.

    Args:
        folders: usual names of the data set's folder, the first is where a download puts it.
        find: gives the data set's own folder inside a folder, or None.
        root: the folder that the user named, or None.
        hint: how to get the data.

    Raises:
        DataError: found nowhere (the places are listed), or in several subfolders.
    """
    base = Path(root).expanduser() if root is not None else data_folder()
    for place in (base, *(base / name for name in folders)):
        found = find(place)
        if found is not None:
            return found
    others = [found for place in _subfolders(base) if (found := find(place)) is not None]
    if len(others) == 1:
        return others[0]
    if others:
        raise DataError(
            f"several folders of {base} have this data set's layout: {', '.join(str(other) for other in others)}",
            "name one with --data",
        )
    state = "looked at it and at its subfolders" if base.is_dir() else "there is no such folder"
    where = (
        "" if root is not None else " (from DENSECL_DATA)" if os.environ.get("DENSECL_DATA") else " (the default place)"
    )
    names = ", ".join(folders)
    raise NotFoundError(f"no {folders[0]} data in {base}{where}: {state} ({names})", hint)


def check_files(kind: str, folder: Path, names: list[str], present: set[str], hint: str) -> None:
    """Refuse a list that names absent files.

    Raises:
        DataError: with their number and the first three.
    """
    missing = [name for name in names if name not in present]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(f"{len(missing)} of {len(names)} {kind} are missing in {folder}: {shown}", hint)


def names_in(folder: Path) -> set[str]:
    """The names of all files in a folder; far quicker than asking for each of ten thousand."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _subfolders(base: Path) -> Iterator[Path]:
    if base.is_dir():
        yield from sorted(entry for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith("."))
