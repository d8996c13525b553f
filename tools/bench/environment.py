"""The machine that measurements were made on, as a reader needs it to compare them."""

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

import torch

from densecl import __version__
from densecl.data.class_index import usable_cores


def environment(device: torch.device) -> dict[str, Any]:
    """Plain values by name; `load` is the number of programs that wanted to run in the last minute, None if unknown."""
    cuda = device.type == "cuda"
    return {
        "densecl": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load": _load(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _load() -> float | None:
    with contextlib.suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return None
