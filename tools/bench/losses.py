"""The unbiased losses against their textbook form: time and peak memory of forward and backward."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import goals
from bench.memory import peak_bytes
from bench.rows import Bench, Goal, Missing, Row, Sense
from bench.timing import Form
from densecl.losses import unbiased_cross_entropy, unbiased_distillation

SMALL = {"shape": (2, 21, 32, 32)}
KIND = "losses"

Loss = Callable[[Tensor], Tensor]


class Pair(NamedTuple):
    """A loss in both forms, on the same logits."""

    what: str
    name: str  # of the textbook form
    textbook: Loss
    ours: Loss
    goal: Goal


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
    bench: Bench, shape: tuple[int, int, int, int] = (8, 21, 256, 256), n_old: int = 16, seed: int = 0
) -> Iterator[Row | Missing]:
    """Compare both unbiased losses with their textbook form; then, where there is a compiler, compiled by torch.

    The memory does not count the logits themselves; their gradient is counted.

    Args:
        bench: how.
        shape: (B, C, H, W) of the logits, float32.
        n_old: outputs of the teacher.
        seed: of logits and labels.
    """
    logits, pairs = _pairs(shape, n_old, seed, bench.device)
    for pair in pairs:
        yield _compare(bench, logits, pair, "gradient made beside the loss", pair.ours, pair.goal)
    if not bench.compile:
        yield Missing(KIND, "compiled forms were not asked for")
        return
    for pair in pairs:
        try:
            yield _compare(bench, logits, pair, "compiled by torch.compile", torch.compile(pair.ours), None)
        except Exception as error:  # of many kinds: no compiler, one that fails, a device it does not know
            yield Missing(KIND, f"{pair.what}, compiled: {type(error).__name__}: {first_line(error)}")
            return


def first_line(error: Exception) -> str:
    """What an exception says, without the pages that a compiler adds."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")[:200]


def _pairs(shape: tuple[int, int, int, int], n_old: int, seed: int, device: torch.device) -> tuple[Tensor, list[Pair]]:
    """Logits, and the losses of them."""
    generator = torch.Generator().manual_seed(seed)
    batch, classes, height, width = shape
    logits = torch.randn(shape, generator=generator).to(device).requires_grad_()
    teacher = torch.randn((batch, n_old, height, width), generator=generator).to(device)
    target = torch.randint(n_old - 1, classes, (batch, height, width), generator=generator)
    target[target < n_old] = 0
    target[:, : height // 32] = 255
    target = target.to(device)
    size = "x".join(map(str, shape))
    return logits, [
        Pair(
            f"unbiased cross-entropy, {size}",
            "textbook, fills BxCxHxW",
            lambda z: textbook_cross_entropy(z, target, n_old),
            lambda z: unbiased_cross_entropy(z, target, n_old=n_old),
            goals.UNBIASED_CROSS_ENTROPY,
        ),
        Pair(
            f"unbiased distillation, {size}",
            "textbook, all log-probabilities",
            lambda z: textbook_distillation(z, teacher),
            lambda z: unbiased_distillation(z, teacher),
            goals.UNBIASED_DISTILLATION,
        ),
    ]


def _compare(bench: Bench, logits: Tensor, pair: Pair, name: str, ours: Loss, goal: Goal | None) -> Row:
    """Time and peak memory of forward and backward."""

    def run(loss: Loss) -> None:
        logits.grad = None
        loss(logits).backward()

    def peak(loss: Loss) -> int:
        logits.grad = None  # before the count starts: freeing the last gradient within it would hide as many bytes
        return peak_bytes(lambda: run(loss), bench.device)

    run(ours)  # compiles what is to be compiled, before anything is timed or counted
    return bench.compare(
        KIND,
        pair.what,
        Form(name, lambda: run(ours)),
        Form(pair.name, lambda: run(pair.textbook)),
        Sense.SPEED,
        memory_ratio=peak(ours) / peak(pair.textbook),
        goal=goal,
    )
