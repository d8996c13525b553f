"""The share of a device's arithmetic peak that training reaches: a realistic loop beside one large product."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.harness import loss_of, train
from bench.passes import passes
from bench.rows import PEAK, Bench, Form, Missing, Row, Spent, in_turn, median
from densecl.check.tiny import TinyImages
from densecl.data.class_index import usable_cores
from densecl.data.dataset import Sample
from densecl.models.network import Network
from densecl.settings.backbone import build_backbone
from densecl.settings.recipe import TrainingSettings
from densecl.strategies.finetune import Finetune
from densecl.streams.scenario import class_incremental
from densecl.training.loop import Loop

BACKBONE: dict[str, Any] = {"encoder": "resnet50", "weights": "none"}


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int = 8192, repeats: int = 10) -> float:
    """Floating-point operations a second in the product of two square matrices of this size, the best of several."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    turns = in_turn((Form("matmul", lambda: torch.mm(a, b)),), repeats, warmup=3)
    return 2 * size**3 / min(spent.clock for (spent,) in turns)


def training_flops(network: Network, image: Tensor, target: Tensor) -> int:
    """Floating-point operations of forward and backward in convolutions and products; the network's mode is kept."""
    with FlopCounterMode(display=False) as counter:
        loss_of(network(image), target).backward()
    network.zero_grad()
    return counter.get_total_flops()


def iterations_of(epochs: list[Spent], iterations: int) -> list[Spent]:
    """An iteration's time in each epoch but the first, which prepares (compiler, choice of kernels, workers)."""
    return [Spent(epoch.clock / iterations, epoch.processor / iterations) for epoch in epochs[1:]]


def measure_share(
    bench: Bench,
    backbone: dict[str, Any] = BACKBONE,
    size: int = 512,
    batch: int = 24,
    iterations: int = 10,
    precision: str = "bf16",
    matmul: int = 8192,
) -> Iterator[Row | Missing]:
    """Train our loop on images in memory with the settings that a GPU is fastest with; compiled as well where asked.

    Epochs of so many iterations as the bench has turns are timed; the peak is that of the precision's type.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    peak = matmul_peak(bench.device, dtype, matmul)
    images, test = Repeated(batch * iterations, size), TinyImages(2, 2, size)
    presence = np.resize(images.presence(), (len(images), 256))
    scenario = class_incremental(images, test, ((1, 2, 3, 4),), presence=presence)
    workers = min(8, usable_cores() - 1) if bench.device.type == "cuda" else 0
    for compiled in (False, True) if bench.compile else (False,):
        common = {"augmentation": "flip", "crop": "full", "precision": precision}
        common["channels_last"] = bench.device.type == "cuda"
        settings = TrainingSettings(epochs=bench.repeats + 1, batch=batch, compile=compiled, **common)
        name = f"our loop, {'compiled' if compiled else 'not compiled'}"
        torch.manual_seed(0)
        network = Network(build_backbone("bisenet", backbone))
        about = (scenario.stream, scenario.normalisation, settings)
        options = {"scenario": scenario, "device": bench.device, "workers": workers}
        try:
            with passes() as epochs:
                train(Loop(Finetune(), network, *about, **options))
        except Exception as error:  # a compiler fails in many ways
            if not compiled:
                raise
            yield Missing(f"{name}: {type(error).__name__}")
            return
        image = torch.randn(batch, 3, size, size, device=bench.device)
        flops = training_flops(network, image, torch.zeros_like(image[:, 0], dtype=torch.int64))
        spent = iterations_of([whole for _, whole in epochs], iterations)
        rate = batch / median([one.clock for one in spent])
        yield Row(
            f"training bisenet-{backbone['encoder']}, {batch} images {size}x{size}, {precision}, channels_last",
            (name, f"matmul of {matmul}x{matmul}, {peak / 1e12:.3g} TFLOP/s"),
            [(one, Spent(flops / peak)) for one in spent],
            PEAK,
            note=f"{rate:.0f} images a second, {flops / 1e12:.3g} TFLOP an iteration",
        )


class Repeated(TinyImages):
    """A few images in memory that stand for many."""

    def __init__(self, n: int, size: int, different: int = 16):
        super().__init__(min(n, different), 1, size)
        self.n = n

    def __len__(self) -> int:
        return self.n

    def read(self, index: int) -> Sample:
        """The sample at a position."""
        return super().read(index % len(self.ids))
