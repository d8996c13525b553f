"""The folder of a run: held by one process, removed when nothing was learnt, on a disk with enough space."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
import torch

from densecl.errors import RunError
from densecl.files import write_error


@contextlib.contextmanager
def locked(folder: Path, busy: RunError | None = None) -> Iterator[None]:
    """Hold a folder; the lock of a process that died is free. Raises `busy` if another process holds it."""
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        message = f"the run folder {folder} is in use by another process"
        raise (busy or RunError(message, "wait for it, or use another --output")) from error
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def remove(folder: Path, output: Path) -> None:
    """Remove a run's folder, and the folders up to `output` that it leaves empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty
        for parent in folder.parents:
            if parent == output.parent:
                break
            parent.rmdir()


def check_space(folder: Path, network: torch.nn.Module, steps: int) -> None:
    """Refuse to start a run whose weights will not fit."""
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    # each step's weights, the shared first step, and three epochs with an optimiser of two moments
    needed = int(size * (steps + 1 + 3 * 3)) + 8 * 2**20
    there = next((place for place in (folder, *folder.absolute().parents) if place.is_dir()), Path())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise RunError(
            f"not enough disk for {folder}: {needed / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free",
            "free some space or choose another --output",
        )
