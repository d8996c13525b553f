"""What masks cost: a Piggyback iteration beside one of fine-tuning; packing; changing the task of the full U-Net."""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from densecl.losses import cross_entropy
from densecl.masking import MaskSettings
from densecl.masking.binary import add_masks, begin, finish, masks, score_parameters, select
from densecl.masking.bits import pack
from densecl.models import Network, UNet


def measure(
    repeats: int = 5,
    iterations: int = 4,
    width: int = 16,
    size: int = 48,
    batch: int = 16,
    switched_width: int = 64,
) -> dict[str, Any]:
    """Measure on the CPU, at the current number of threads.

    Args:
        repeats: pairs of so many iterations, in turn; and changes of the task.
        iterations: of each turn.
        width: of the U-Net that is trained; 16 is that of the embedded sequences.
        size: of the square images.
        batch: how many images.
        switched_width: of the U-Net whose tasks are changed; 64 is the full one.

    Returns:
        Ratios and seconds, medians unless named.
    """
    torch.manual_seed(0)
    network = Network(UNet(width))
    network.grow(21)
    image, target = torch.randn(batch, 3, size, size), torch.randint(0, 21, (batch, size, size))
    tuned, masked = _finetuning(network, image, target), _piggyback(network, image, target)
    tuned()
    masked()  # both have warmed up
    pairs, work = [], []
    for _ in range(repeats):
        (tune, tune_work), (mask, mask_work) = _spent(tuned, iterations), _spent(masked, iterations)
        pairs.append((tune, mask))
        work.append(mask_work / tune_work)
    ratios = [mask / tune for tune, mask in pairs]
    return {
        "piggyback over fine-tuning, median": statistics.median(ratios),
        "piggyback over fine-tuning, min": min(ratios),
        "piggyback over fine-tuning, max": max(ratios),
        "the same in CPU time of all threads, median": statistics.median(work),
        "ms an iteration, fine-tuning": 1000 * statistics.median(tune for tune, _ in pairs) / iterations,
        "ms an iteration, piggyback": 1000 * statistics.median(mask for _, mask in pairs) / iterations,
        **_switching(switched_width, repeats),
    }


def _finetuning(network: nn.Module, image: Tensor, target: Tensor) -> Callable[[], None]:
    network = copy.deepcopy(network)
    return _iteration(network, list(network.parameters()), image, target)


def _piggyback(network: Network, image: Tensor, target: Tensor) -> Callable[[], None]:
    """With per-task BatchNorm: scores, scale and shift, and the head are trained."""
    network = copy.deepcopy(network)
    add_masks(network)
    begin(network, "task", MaskSettings())
    trained = [p for p in network.parameters() if p.requires_grad]
    assert len(trained) > len(score_parameters(network))
    return _iteration(network, trained, image, target)


def _iteration(network: nn.Module, trained: list[nn.Parameter], image: Tensor, target: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    network.train()

    def iterate() -> None:
        optimizer.zero_grad()
        cross_entropy(network(image).logits, target).backward()
        optimizer.step()

    return iterate


def _switching(width: int, repeats: int) -> dict[str, float]:
    network = Network(UNet(width)).eval()
    network.grow(21)
    add_masks(network)
    names = ("first", "second")
    for seed, name in enumerate(names):
        begin(network, name, MaskSettings(init="random"), seed)
        finish(network, name)
    bits = torch.cat([mask.flatten() for mask in masks(network, names[0]).values()])
    packing = [_seconds(lambda: pack(bits)) for _ in range(repeats + 1)][1:]
    spent = [_spent(lambda name=name: select(network, name), 1) for _ in range(repeats + 1) for name in names][2:]
    changes = [seconds for seconds, _ in spent]
    return {
        "mask bits": len(bits),
        "ms to pack them": 1000 * statistics.median(packing),
        "ms to change the task": 1000 * statistics.median(changes),
        "ms to change the task, max": 1000 * max(changes),
        "the same in CPU time of all threads, ms": 1000 * statistics.median(used for _, used in spent),
    }


def _seconds(work: Callable[[], object]) -> float:
    return _spent(work, 1)[0]


def _spent(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Seconds on the clock, and of the processor, which other programs disturb less."""
    start, used = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    return time.perf_counter() - start, time.process_time() - used
