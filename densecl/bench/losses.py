"""The unbiased losses against their textbook form: time and peak memory of forward and backward."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.losses import unbiased_cross_entropy, unbiased_distillation

Loss = Callable[[Tensor], Tensor]


def textbook_cross_entropy(logits: Tensor, target: Tensor, n_old: int) -> Tensor:
    """MiB's cross-entropy as its formula reads: a (B, C, H, W) tensor of log-probabilities, then `nll_loss`."""
    total = logits.logsumexp(1, keepdim=True)
    log_p = torch.zeros_like(logits)
    log_p[:, :1] = logits[:, :n_old].logsumexp(1, keepdim=True) - total
    log_p[:, n_old:] = logits[:, n_old:] - total
    return F.nll_loss(log_p, torch.where(target < n_old, 0, target), ignore_index=255)


def textbook_distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """MiB's distillation as its formula reads: all log-probabilities of the old outputs, then the weighted sum."""
    n_old = teacher_logits.shape[1]
    total = logits.logsumexp(1, keepdim=True)
    background = torch.cat([logits[:, :1], logits[:, n_old:]], 1).logsumexp(1, keepdim=True) - total
    log_p = torch.cat([background, logits[:, 1:n_old] - total], 1)
    return -(teacher_logits.softmax(1) * log_p).sum(1).mean() / n_old


def peak_bytes(call: Callable[[], None]) -> int:
    """Most bytes held at once in CPU tensors made by `call`, from the allocations and frees the profiler records."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with _silent_stderr(), torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        call()
    recorded: Any = profiler.profiler  # the per-event sizes have no public, typed access
    events = recorded.kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    held = peak = 0  # a call must free nothing that was made before it, or the count would start too low
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


def compare(logits: Tensor, textbook: Loss, ours: Loss, repeats: int) -> dict[str, float]:
    """Median seconds of forward and backward, measured in turn, and peak memory; ratios above 1 favour `ours`."""

    def run(loss: Loss) -> None:
        logits.grad = None
        loss(logits).backward()

    seconds: dict[str, list[float]] = {"textbook": [], "ours": []}
    pairs = {"textbook": textbook, "ours": ours}
    for loss in pairs.values():  # warm-up
        run(loss)
    for _ in range(repeats):
        for name, loss in pairs.items():
            start = time.perf_counter()
            run(loss)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    memory = {}
    for name, loss in pairs.items():
        logits.grad = None  # before the count starts: freeing the last gradient within it would hide as many bytes
        memory[name] = peak_bytes(lambda loss=loss: run(loss))
    return {
        "textbook_seconds": medians["textbook"],
        "seconds": medians["ours"],
        "speedup": medians["textbook"] / medians["ours"],
        "textbook_bytes": memory["textbook"],
        "bytes": memory["ours"],
        "memory_ratio": memory["ours"] / memory["textbook"],
    }


def measure(
    repeats: int = 7, shape: tuple[int, int, int, int] = (8, 21, 256, 256), n_old: int = 16, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Compare both unbiased losses with their textbook form on the CPU, at the current number of threads.

    Args:
        repeats: timed runs of each form, in turn; the median counts.
        shape: (B, C, H, W) of the logits, float32.
        n_old: outputs of the teacher.
        seed: of logits and labels.

    Returns:
        Loss name -> `speedup` (times as fast), `memory_ratio` (peak, ours over textbook; the logits themselves are not
        counted, their gradient is) and the seconds and bytes they come from.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, classes, height, width = shape
    logits = torch.randn(shape, generator=generator, requires_grad=True)
    teacher = torch.randn((batch, n_old, height, width), generator=generator)
    target = torch.randint(n_old - 1, classes, (batch, height, width), generator=generator)
    target[target < n_old] = 0
    target[:, : height // 32] = 255
    return {
        "unbiased_cross_entropy": compare(
            logits,
            lambda z: textbook_cross_entropy(z, target, n_old),
            lambda z: unbiased_cross_entropy(z, target, n_old=n_old),
            repeats,
        ),
        "unbiased_distillation": compare(
            logits,
            lambda z: textbook_distillation(z, teacher),
            lambda z: unbiased_distillation(z, teacher),
            repeats,
        ),
    }
