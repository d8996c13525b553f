"""Peak memory of a piece of work."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch


def peak_bytes(call: Callable[[], object], device: torch.device | None = None) -> int:
    """Most bytes held at once in tensors made by `call`.

    On a CPU from the allocations and frees that the profiler records, on a GPU from the allocator's own count. A call
    must free nothing that was made before it: that would hide as many bytes.

    Args:
        call: the work.
        device: where its tensors are; None: the CPU.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with _silent_stderr(), torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        call()
    recorded: Any = profiler.profiler  # the per-event sizes have no public, typed access
    events = recorded.kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda item: item[0]):  # stable: equal times keep their order
        held += change
        peak = max(peak, held)
    return peak


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep the lines the profiler's C++ side writes at start and stop, whatever its log level, off the screen."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
