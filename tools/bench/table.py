"""Measurements as text, and the machine they were made on."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import select_unit

from bench.rows import Missing, Row
from densecl import __version__
from densecl.data.class_index import usable_cores

LEGEND = """Times and ratios are medians over the turns, ± half the interquartile range.
CPU: the ratio in time of the processor; memory: peak, ours over the reference's."""
BUSY = 0.5  # load a core above which other programs disturb the measurement


def environment(device: torch.device) -> dict[str, Any]:
    """The machine; `load` is the number of programs that wanted to run in the last minute, None if unknown."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "densecl": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def machine_lines(machine: dict[str, Any], small: bool) -> str:
    """The machine, and what makes the figures doubtful."""
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    text = f"densecl {machine['densecl']}, torch {machine['torch']}, {machine['cpu']}{gpu}, "
    text += f"{machine['threads']} threads of {machine['cores']} cores\n"
    if machine["load"] is not None and machine["load"] > BUSY * machine["cores"]:
        text += f"other programs were running (load {machine['load']:.1f}): look at the range and at CPU\n"
    return text + ("small sizes: they say nothing about the machine, and no goal is applied\n" if small else "")


def render(results: Sequence[Row | Missing]) -> str:
    """The measurements, four lines each: what is measured, our form, the reference, and the ratio."""
    text, rows = "", [row for row in results if isinstance(row, Row)]
    for kind, sense in dict.fromkeys((row.kind, row.sense) for row in rows):
        group = [row for row in rows if (row.kind, row.sense) == (kind, sense)]
        text += f"{kind}: {sense} ({'more' if group[0].more else 'less'} is better)\n"
        text += "".join(_row(row) for row in group) + "\n"
    return text + "".join(f"left out of {line.kind}: {line.line}\n" for line in results if isinstance(line, Missing))


def _row(row: Row) -> str:
    forms = [f"  {name:50} {time_text(s):>10}\n" for name, s in zip(row.names, row.seconds, strict=True)]
    values = {"CPU": row.processor, "memory": row.memory}
    ratio = f"    {row.ratio.median:.3g} ± {row.ratio.iqr / 2:.2g}"
    ratio += "".join(f", {name} {value:.3g}" for name, value in values.items() if value is not None)
    goal = "" if row.goal is None else f"; goal {goal_text(row)}: {'met' if row.met else 'NOT MET'}"
    return f"{row.what}\n{''.join(forms)}{ratio}{goal}\n" + (f"    {row.note}\n" if row.note else "")


def goal_text(row: Row) -> str:
    """The parts of a goal."""
    ratio, memory, seconds = row.goal or (None, None, None)
    parts = [] if ratio is None else [f"{'≥' if row.more else '≤'} {ratio:g}"]
    parts += [] if memory is None else [f"memory ≤ {memory:g}"]
    return ", ".join(parts if seconds is None else [*parts, f"≤ {time_text(seconds)}"])


def time_text(seconds: float) -> str:
    """Seconds with three digits, in the unit that suits them."""
    unit, size = select_unit(seconds) if seconds else ("us", 1e-6)
    return f"{seconds / size:.3g} {unit}"
