"""The cost of masks: a Piggyback iteration beside one of fine-tuning; packing; changing the task of the full U-Net."""

import copy
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from bench.rows import COST, SPEED, Bench, Form, Goal, Row
from densecl.losses import cross_entropy
from densecl.masking.binary import MaskSettings, add_masks, begin, finish, masks, score_parameters, select
from densecl.masking.bits import pack
from densecl.models import Network, UNet

SMALL = {"iterations": 1, "width": 4, "size": 16, "batch": 2, "switched_width": 8}


def measure(
    bench: Bench, iterations: int = 4, width: int = 16, size: int = 48, batch: int = 16, switched_width: int = 64
) -> Iterator[Row]:
    """Training with masks on a U-Net of a width (16: that of the embedded sequences); keeping and changing them."""
    torch.manual_seed(0)
    network = Network(UNet(width))
    network.grow(21)
    network.to(bench.device)
    image = torch.randn(batch, 3, size, size).to(bench.device)
    target = torch.randint(0, 21, (batch, size, size)).to(bench.device)
    tuned, masked = copy.deepcopy(network), copy.deepcopy(network)
    add_masks(masked)
    begin(masked, "task", MaskSettings())  # with per-task BatchNorm: scores, scale and shift, and the head are trained
    trained = [p for p in masked.parameters() if p.requires_grad]
    assert len(trained) > len(score_parameters(masked))
    yield bench.compare(
        f"{iterations} iterations of {batch} images {size}x{size}, U-Net of width {width}",
        Form("Piggyback", _iterations(masked, trained, image, target, iterations)),
        Form("fine-tuning", _iterations(tuned, list(tuned.parameters()), image, target, iterations)),
        COST,
        goal=Goal(ratio=1.15),
    )
    yield from _keeping(bench, switched_width)


def _iterations(
    network: nn.Module, trained: list[nn.Parameter], image: Tensor, target: Tensor, iterations: int
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    network.train()

    def iterate() -> None:
        for _ in range(iterations):
            optimizer.zero_grad()
            cross_entropy(network(image).logits, target).backward()
            optimizer.step()

    return iterate


def packed_textbook(bits: Tensor) -> Tensor:
    """Eight bits a byte as the definition reads: the sum of each bit times its power of two, the first the highest."""
    padded = torch.cat([bits, bits.new_zeros(-len(bits) % 8)]).view(-1, 8)
    powers = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=bits.device)
    return (padded * powers).sum(1, dtype=torch.uint8)


def _keeping(bench: Bench, width: int) -> Iterator[Row]:
    """Packing the masks of a task, and changing from one task to another."""
    network = Network(UNet(width)).eval()
    network.grow(21)
    network.to(bench.device)
    add_masks(network)
    names = ("first", "second")
    for seed, name in enumerate(names):
        begin(network, name, MaskSettings(init="random"), seed)
        finish(network, name)
    bits = torch.cat([mask.flatten() for mask in masks(network, names[0]).values()])
    yield bench.compare(
        f"packing {len(bits):,} mask bits",
        Form("packbits", lambda: pack(bits)),
        Form("sum of bits times powers of two", lambda: packed_textbook(bits)),
        SPEED,
        least=0.02,
        goal=Goal(seconds=20e-3),
    )
    weights = [p.detach() for name, p in network.named_parameters() if name.endswith("original")]
    copies = [torch.empty_like(weight) for weight in weights]
    turn = itertools.cycle(names)
    yield bench.compare(
        f"changing the task of a U-Net of width {width}",
        Form("masked weights made once", lambda: select(network, next(turn))),
        Form("copying the same weights", lambda: [a.copy_(b) for a, b in zip(copies, weights, strict=True)]),
        COST,
        warmup=2,
        goal=Goal(seconds=50e-3),
    )
