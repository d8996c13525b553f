"""Files that are either whole or absent: written beside their place, synced, renamed. And locks."""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from densecl.errors import DenseCLError, RunError

LEFT = re.compile(r"\..*\.tmp")  # the names of files that are being written
CHOICE = "choose another --output / DENSECL_CACHE"


def expanded(path: Path | str | Callable[[], str]) -> Path:
    """A path with the home folder in place of `~`; of a callable, the path that it gives."""
    try:
        return Path(path() if callable(path) else path).expanduser()
    except RuntimeError as error:
        place = "" if callable(path) else f"{path}: "
        advice = "write paths without ~; set HOME, or DENSECL_CACHE and DENSECL_DATA"
        raise DenseCLError(f"{place}there is no such home folder", advice) from error


@contextlib.contextmanager
def atomic_path(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success sync it and rename it to `path`.

    After any exception the temporary file is gone and `path` is what it was before; a full disk is a RunError. Without
    `sync` a crash of the machine may leave a torn file, for content that is checked when it is read.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if sync:
            _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DenseCLError):
            raise write_error(path, error) from error
        raise


@contextlib.contextmanager
def locked(lock: Path, busy: str | Callable[[], object], guarded: str = "**/*") -> Iterator[None]:
    """Hold a lock file, whose folder is made if need be; the lock of a process that died is free.

    Where another process holds it, `busy` is the message of a RunError; a callable is called, and the other waited for.
    Of the files that the lock guards, a pattern in its folder, those that killed writes left are removed.
    """
    import filelock

    held = filelock.FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except filelock.Timeout as error:
            if isinstance(busy, str):
                raise RunError(busy) from error
            busy()
            held.acquire()
    except OSError as error:
        raise write_error(Path(error.filename or lock), error) from error
    except NotImplementedError as error:
        raise RunError(f"{lock} cannot be locked: its file system has no locks", CHOICE) from error
    try:
        for path in lock.parent.glob(guarded):
            if LEFT.fullmatch(path.name):
                with contextlib.suppress(OSError):  # another user's
                    path.unlink()
        yield
    finally:
        held.release()


def write_error(path: Path | str, error: OSError, task: str = "write") -> RunError:
    """The message for a file, if it is one, that could not be written, or used: whatever is the `task`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place, choice = (f" of {path}", f" or {CHOICE}") if path else ("", "")
        return RunError(f"no space left on the disk{place}", f"free some space{choice}")
    advice = {errno.ENAMETOOLONG: "its file system takes shorter names only", errno.EROFS: "it is read-only"}
    permissions = "check its permissions and those of its folder"
    return RunError(
        f"cannot {task} {path}: {error.strerror or error}", f"{advice.get(error.errno or 0, permissions)}, or {CHOICE}"
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; file systems that cannot sync a folder are left alone."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
