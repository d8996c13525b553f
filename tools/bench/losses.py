"""The unbiased losses against their textbook form: time and peak memory of forward and backward."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.rows import SPEED, Bench, Form, Goal, Missing, Row
from densecl.losses import unbiased_cross_entropy, unbiased_distillation

SMALL = {"shape": (2, 21, 32, 32)}
GOALS = {"cross-entropy": Goal(ratio=2.5, memory=0.6), "distillation": Goal(ratio=1.5)}

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


def measure(
    bench: Bench, shape: tuple[int, int, int, int] = (8, 21, 256, 256), n_old: int = 16
) -> Iterator[Row | Missing]:
    """Compare both unbiased losses with their textbook form; then, where there is a compiler, compiled by torch.

    The memory does not count the float32 logits (B, C, H, W) themselves; their gradient is counted.
    """
    generator = torch.Generator().manual_seed(0)
    batch, classes, height, width = shape
    logits = torch.randn(shape, generator=generator).to(bench.device).requires_grad_()
    teacher = torch.randn((batch, n_old, height, width), generator=generator).to(bench.device)
    target = torch.randint(n_old - 1, classes, (batch, height, width), generator=generator)
    target[target < n_old] = 0
    target[:, : height // 32] = 255
    target = target.to(bench.device)

    def cross_entropy(z: Tensor) -> Tensor:
        return unbiased_cross_entropy(z, target, n_old=n_old)

    def distillation(z: Tensor) -> Tensor:
        return unbiased_distillation(z, teacher)

    pairs = {
        "cross-entropy": (cross_entropy, "fills BxCxHxW", lambda z: textbook_cross_entropy(z, target, n_old)),
        "distillation": (distillation, "all log-probabilities", lambda z: textbook_distillation(z, teacher)),
    }

    def row_of(name: str, how: str, ours: Loss, goal: Goal | None) -> Row:
        _, form, textbook = pairs[name]
        what = f"unbiased {name}, {'x'.join(map(str, shape))}"
        return compare(bench, logits, what, (how, ours), (f"textbook, {form}", textbook), goal)

    for name, (ours, _, _) in pairs.items():
        yield row_of(name, "gradient made beside the loss", ours, GOALS[name])
    if not bench.compile:
        yield Missing("compiled forms were not asked for")
        return
    for name, (ours, _, _) in pairs.items():
        try:
            yield row_of(name, "compiled by torch.compile", torch.compile(ours), None)
        except Exception as error:  # of many kinds: no compiler, one that fails, a device it does not know
            line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")[:200]
            yield Missing(f"unbiased {name}, compiled: {type(error).__name__}: {line}")
            return


def compare(
    bench: Bench, logits: Tensor, what: str, ours: tuple[str, Loss], textbook: tuple[str, Loss], goal: Goal | None
) -> Row:
    """Time and peak memory of forward and backward."""

    def run(loss: Loss) -> None:
        logits.grad = None
        loss(logits).backward()

    def peak(loss: Loss) -> int:
        logits.grad = None  # before the count starts: freeing the last gradient within it would hide as many bytes
        return peak_bytes(lambda: run(loss), bench.device)

    run(ours[1])  # compiles what is to be compiled, before anything is timed or counted
    forms = [Form(name, lambda loss=loss: run(loss)) for name, loss in (ours, textbook)]
    return bench.compare(what, *forms, SPEED, memory=peak(ours[1]) / peak(textbook[1]), goal=goal)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes held at once in tensors made by `call`, which must free nothing that was made before it.

    On a CPU from the allocations and frees that the profiler records, on a GPU from the allocator's own count.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    recorded: Any = profiler.profiler  # the per-event sizes have no public, typed access
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())  # stable: equal times keep their order
    return max(itertools.accumulate((event.nbytes() for event in events), initial=0))
