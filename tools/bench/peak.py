"""What share of a device's arithmetic peak training reaches: a realistic training loop beside one large product."""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.rows import Bench, Missing, Row, Sense, row
from bench.timing import Form, Spent, in_turn, stopwatch
from densecl.check.tiny import TinyImages
from densecl.data.class_index import usable_cores
from densecl.data.dataset import Sample
from densecl.losses import cross_entropy
from densecl.models.network import Network
from densecl.settings.backbone import build_backbone
from densecl.settings.recipe import TrainingSettings
from densecl.strategies.finetune import Finetune
from densecl.streams.scenario import Scenario, class_incremental

KIND = "harness"
BACKBONE: dict[str, Any] = {"encoder": "resnet50", "weights": "none"}


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int = 8192, repeats: int = 10) -> float:
    """Floating-point operations a second in the product of two square matrices of this size, the best of several."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = Form("matmul", lambda: torch.mm(a, b))
    (spent,) = in_turn((product,), repeats, stopwatch(device), warmup=3)
    return 2 * size**3 / min(each.seconds for each in spent)


def training_flops(network: Network, image: Tensor, target: Tensor) -> int:
    """Floating-point operations of forward and backward in convolutions and products; the network's mode is kept."""
    with FlopCounterMode(display=False) as counter:
        output = network(image)
        loss = cross_entropy(output.logits, target)
        for logits in output.auxiliary:
            loss = loss + cross_entropy(logits, target)
        loss.backward()
    network.zero_grad()
    return counter.get_total_flops()


class EpochClock:
    """Hears when the loop has finished an epoch and waited for the device.

    Attributes:
        ends: (seconds on the clock, processor time) of each.
    """

    def __init__(self) -> None:
        self.ends: list[Spent] = []

    def step_started(self, step: int, epochs: int, iterations: int, batches: int, done: int) -> None:
        """See `Events`."""

    def iteration(
        self, epoch: int, iteration: int, loss_terms: dict[str, Tensor], samples: int, rates: Sequence[float]
    ) -> None:
        """See `Events`."""

    def epoch_finished(self, epoch: int, iteration: int, loss_terms: dict[str, Tensor]) -> None:
        """See `Events`."""
        self.ends.append(Spent(time.perf_counter(), time.process_time()))

    def epochs(self, iterations: int) -> list[Spent]:
        """An iteration's time in each epoch but the first, which prepares (compiler, choice of kernels, workers)."""
        pairs = itertools.pairwise(self.ends)
        return [Spent((b.seconds - a.seconds) / iterations, (b.processor - a.processor) / iterations) for a, b in pairs]


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

    Args:
        bench: how; epochs of so many iterations as it has repeats are timed.
        backbone: arguments of BiSeNet.
        size: of the square images.
        batch: images.
        iterations: of an epoch.
        precision: of training; the peak is that of the same type.
        matmul: size of the matrices whose product is the peak.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    peak = matmul_peak(bench.device, dtype, matmul)
    scenario = _images(batch * iterations, size)
    for compiled in (False, True) if bench.compile else (False,):
        settings = TrainingSettings(
            epochs=bench.repeats + 1,
            batch=batch,
            augmentation="flip",
            crop="full",
            precision=precision,  # type: ignore[arg-type]
            channels_last=True,
            compile=compiled,
        )
        name = f"our loop, {'compiled' if compiled else 'not compiled'}"
        try:
            spent, flops = _train(bench.device, backbone, scenario, settings, iterations)
        except Exception as error:  # a compiler fails in many ways
            if not compiled:
                raise
            yield Missing(KIND, f"{name}: {type(error).__name__}")
            return
        rate = batch / statistics.median(each.seconds for each in spent)
        yield row(
            KIND,
            f"training bisenet-{backbone['encoder']}, {batch} images {size}x{size}, {precision}, channels_last",
            (name, f"matmul of {matmul}x{matmul}, {peak / 1e12:.3g} TFLOP/s"),
            (spent, [Spent(flops / peak, 0.0)] * len(spent)),
            Sense.PEAK,
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


def _images(n: int, size: int) -> Scenario:
    """A stream of one step with so many images, none of them read from a file."""
    train, test = Repeated(n, size), TinyImages(2, 2, size)
    presence = np.resize(train.presence(), (n, 256))
    return class_incremental(train, test, ((1, 2, 3, 4),), presence=presence)  # type: ignore[arg-type]


def _train(
    device: torch.device, backbone: dict[str, Any], scenario: Scenario, settings: TrainingSettings, iterations: int
) -> tuple[Sequence[Spent], int]:
    """Time of an iteration in each epoch, and its operations."""
    torch.manual_seed(0)
    network, clock = Network(build_backbone("bisenet", backbone)), EpochClock()
    workers = min(8, usable_cores() - 1) if device.type == "cuda" else 0
    make = partial(Finetune, network=network, scenario=scenario, settings=settings)
    strategy = make(device=device, workers=workers, events=clock)
    strategy.train(scenario.train_stream[0], eval_streams=[])
    image = torch.randn(settings.batch, 3, *scenario.training.reader.read(0)[0].shape[1:], device=device)
    target = torch.zeros((len(image), *image.shape[2:]), dtype=torch.int64, device=device)
    return clock.epochs(iterations), training_flops(network, image, target)
