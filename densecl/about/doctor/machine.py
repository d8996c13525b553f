"""Devices that compute, folders that are written, and the room in them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from densecl.about.doctor.finding import Finding
from densecl.data.places import cache_folder, data_folder

LITTLE = 2 << 30  # bytes of free disk that a run may soon fill
DRIVER = Path("/proc/driver/nvidia")  # is there where a GPU's driver is


def devices() -> Iterator[Finding]:
    """GPUs with their memory, Apple's, and what the CPU offers."""
    import torch

    part = "devices"
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        yield Finding("ok", part, f"cuda:{index}: {device.name}, {memory}, CUDA {torch.version.cuda}")
    if not torch.cuda.is_available() and (DRIVER.exists() or shutil.which("nvidia-smi")):
        if torch.version.cuda is None:
            text, advice = f"a GPU is here, but torch {torch.__version__} is a build without CUDA", "see pytorch.org"
        else:
            text = f"a GPU is here, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it"
            advice = "look at nvidia-smi: is the driver new enough for this CUDA?"
        yield Finding("problem", part, text, advice)
    if torch.backends.mps.is_available():
        yield Finding("ok", part, "mps: Apple's GPU; nobody has tried densecl on it")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limited = f" (OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']})" if "OMP_NUM_THREADS" in os.environ else ""
    text = f"cpu: {usable} core{'s' * (usable > 1)}, torch computes with {torch.get_num_threads()} threads{limited}"
    yield Finding("ok", part, text)


def folders(data: Path | None = None) -> Iterator[Finding]:
    """Where derived files, data and results go: can they be written, and how much room is there?"""
    cache = cache_folder()
    known = {
        f"cache {cache} ({_size(cache)})": (cache, "DENSECL_CACHE"),
        f"data {data or data_folder()}": (Path(data or data_folder()), "--data or DENSECL_DATA"),
        f"results {Path('results').absolute()}": (Path("results"), "--output"),
    }
    for name, (folder, option) in known.items():
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(there).free
        room = f"{name}: {free / 2**30:.1f} GiB free"
        if not there.is_dir() or not os.access(there, os.W_OK):
            needed = name.startswith("results")  # a data set may well lie in a folder that is read-only
            level = "note" if name.startswith("data") else "problem"
            text = f"{name} cannot be written"
            yield Finding(level, "folders", text, f"choose another with {option}" if needed or level != "note" else "")
        elif free < LITTLE:
            yield Finding("problem", "folders", room, f"free some, or choose another place with {option}")
        else:
            yield Finding("ok", "folders", room)
    asked = os.environ.get("DENSECL_DATA")
    if asked and not Path(asked).expanduser().is_dir():
        yield Finding("problem", "folders", f"DENSECL_DATA={asked}: there is no such folder", "correct the variable")


def _size(folder: Path) -> str:
    """What the files in and below a folder take; those that vanish meanwhile count nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 (a fifth of the time)
            except OSError:
                continue
    return f"{total / 2**20:.0f} MiB" if total < 10 << 30 else f"{total / 2**30:.0f} GiB"
