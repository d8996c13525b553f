"""Files that are either whole or absent: written beside their place, synced, renamed. And locks."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from densecl.errors import DenseCLError, RunError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success sync it and rename it to `path`.

    After any exception the temporary file is gone and `path` is what it was before; a full disk is a RunError.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DenseCLError):
            raise write_error(path, error) from error
        raise


@contextlib.contextmanager
def locked(lock: Path, busy: RunError | Callable[[], object]) -> Iterator[None]:
    """Hold a lock file, whose folder is made if need be; the lock of a process that died is free.

    Where another process holds it, a `busy` error is raised; a callable is called, and the other process waited for.
    """
    import filelock

    held = filelock.FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except filelock.Timeout as error:
            if isinstance(busy, RunError):
                raise busy from error
            busy()
            held.acquire()
    except OSError as error:
        raise write_error(lock.parent, error) from error
    try:
        yield
    finally:
        held.release()


def write_error(path: Path, error: OSError) -> RunError:
    """The message for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space or choose another --output / DENSECL_CACHE"
        return RunError(f"no space left on the disk of {path}", advice)
    advice = "check the folder's permissions or choose another"
    return RunError(f"cannot write {path}: {error.strerror or error}", advice)


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
