"""How long training waits for its loader, and what the parts of loading cost beside bare ones."""

import gc
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from bench import goals
from bench.harness import SMALL_BACKBONE
from bench.rows import Bench, Row, Sense, row
from bench.timing import Form, Spent, stopwatch
from bench.trees import USUAL, Drawn, find_tree
from densecl.data.dataset import DenseDataset
from densecl.data.labels import lookup_table, remap
from densecl.runner.build import build_network, build_scenario, build_strategy
from densecl.runner.plan import Plan, make_plan
from densecl.strategies.base import Strategy
from densecl.streams.samples import LoadedSample
from densecl.streams.scenario import Scenario
from densecl.training.batch import Batch
from densecl.training.loader import EpochBatches, collate, make_loader

SETTINGS = ("training.crop=128", "evaluation.size=128", "training.epochs=1")
BACKBONE = "bisenet(encoder=resnet18, weights=none)"
SMALL = {
    "workers": 1,
    "drawn": Drawn(20, 2, (32, 48)),
    "mask": 32,
    "backbone": SMALL_BACKBONE,
    "settings": ("training.crop=32", "evaluation.size=32", "training.iterations=3", "training.batch=4"),
}
KIND = "loader"
LEAST = 0.02  # seconds a turn of what takes microseconds


class Waiting(Iterable[Batch]):
    """A loader that adds up how long each next batch took; the first of a pass, which starts the workers, apart.

    Attributes:
        first, later: what the first batch took, and all others.
    """

    def __init__(self, loader: Iterable[Batch]):
        self.loader = loader
        self.first = self.later = Spent(0.0, 0.0)

    def __iter__(self) -> Iterator[Batch]:
        batches, number = iter(self.loader), 0
        while True:
            start, used = time.perf_counter(), time.process_time()
            batch = next(batches, None)
            spent = Spent(time.perf_counter() - start, time.process_time() - used)
            if batch is None:
                return
            if number == 0:
                self.first = spent
            else:
                self.later = Spent(self.later.seconds + spent.seconds, self.later.processor + spent.processor)
            number += 1
            yield batch


class BareDecode(Dataset[int]):
    """Decodes images and masks, and does nothing with them."""

    def __init__(self, dataset: DenseDataset, indices: np.ndarray):
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> int:
        i = int(self.indices[position])
        with Image.open(self.dataset.image_files[i]) as image, Image.open(self.dataset.mask_files[i]) as mask:
            return np.asarray(image).shape[0] + np.asarray(mask).shape[0]


def textbook_remap(mask: Tensor, mapping: dict[int, int]) -> Tensor:
    """New labels as one reads the mapping: a pass over the mask for each label; what is not mentioned is 0."""
    result = torch.zeros_like(mask)
    for label, new in mapping.items():
        result[mask == label] = new
    return result


def measure(
    bench: Bench,
    workers: int = 2,
    drawn: Drawn = USUAL,
    settings: tuple[str, ...] = SETTINGS,
    backbone: str = BACKBONE,
    mask: int = 512,
) -> Iterator[Row]:
    """Waiting in step 0 of `voc15-5`; loading alone; and on made labels and images, remap and collate.

    Args:
        bench: how; a turn of waiting is a pass over the step's images.
        workers: processes that load.
        drawn: the tree where none is found.
        settings: assignments of the training.
        backbone: that is trained.
        mask: side of the made labels and images.
    """
    tree = find_tree(bench.data, drawn)
    with TemporaryDirectory() as folder:
        plan = make_plan(
            "voc15-5",
            "finetune",
            backbone=backbone,
            assignments=settings,
            data=tree.root,
            workers=workers,
            device=str(bench.device),
            output=Path(folder),
        )
        scenario, _ = build_scenario(plan)
        yield _waiting(bench, plan, scenario, workers, tree.note)
        yield _loading(bench, plan, scenario, workers, tree.note)
    yield from _parts(bench, mask, plan.settings.training.batch)


def _waiting(bench: Bench, plan: Plan, scenario: Scenario, workers: int, note: str) -> Row:
    waited, trained = [], []
    for _ in range(bench.repeats):
        spent, waiting = _train(plan, scenario, workers)
        # patched into itself, the strategy is a circle that holds an iterator over processes that have ended; the next
        # workers, forked off this one, would collect it and complain
        gc.collect()
        waited.append(waiting.later)
        first = waiting.first
        trained.append(Spent(spent.seconds - first.seconds, spent.processor - first.processor))
    n = len(scenario.train_stream[0].images.indices)
    return row(
        KIND,
        f"waiting for batches, {n} images, {workers} workers",
        ("waiting, but for the first batch", f"training {plan.settings.backbone}"),
        (waited, trained),
        Sense.WAITING,
        goal=goals.WAITING,
        note=note,
    )


def _train(plan: Plan, scenario: Scenario, workers: int) -> tuple[Spent, Waiting]:
    """What the epochs of step 0 took, and the loader's share."""
    strategy: Strategy = build_strategy(plan, scenario, build_network(plan.settings), workers)
    make, epoch, watch = strategy.make_train_dataloader, strategy.training_epoch, stopwatch(strategy.device)
    found: list[Waiting] = []
    spent = Spent(0.0, 0.0)

    def watched(**keywords: Any) -> None:
        make(**keywords)
        found.append(Waiting(strategy.dataloader))  # type: ignore[arg-type]
        strategy.dataloader = found[0]

    def timed(**keywords: Any) -> None:
        nonlocal spent
        one = watch(lambda: epoch(**keywords))
        spent = Spent(spent.seconds + one.seconds, spent.processor + one.processor)

    strategy.make_train_dataloader = watched  # type: ignore[method-assign]
    strategy.training_epoch = timed  # type: ignore[method-assign]
    strategy.train(scenario.train_stream[0], eval_streams=[])
    return spent, found[0]


def _loading(bench: Bench, plan: Plan, scenario: Scenario, workers: int, note: str) -> Row:
    """Our loader without training, over one that only decodes the same files in as many processes."""
    indices, batch = scenario.train_stream[0].images.indices, plan.settings.training.batch

    def ours() -> None:
        for _ in make_loader(scenario.training, EpochBatches(len(indices), batch, 0, 0), workers, pin=False):
            pass

    def bare() -> None:
        for _ in DataLoader(BareDecode(plan.train, indices), batch_size=batch, num_workers=workers):
            pass

    return bench.compare(
        KIND,
        f"loading alone, {len(indices)} images, {workers} workers",
        Form("decode, augment, label, collate", ours),
        Form("bare decode", bare),
        Sense.COST,
        on_cpu=True,
        note=note,
    )


def _parts(bench: Bench, side: int, batch: int) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 21, (16, 16), generator=generator, dtype=torch.uint8)
    mask = coarse.repeat_interleave(side // 16, 0).repeat_interleave(side // 16, 1)
    mapping = {label: label for label in range(16, 21)}  # the labels of a second step
    table = lookup_table(mapping, 0)
    yield bench.compare(
        KIND,
        f"labels of a step, a mask of {side}x{side}",
        Form("look-up table", lambda: remap(mask, table)),
        Form("a pass for each label", lambda: textbook_remap(mask, {**mapping, 255: 255})),
        Sense.SPEED,
        least=LEAST,
        on_cpu=True,
        goal=goals.REMAP,
    )
    image = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
    samples = [LoadedSample(image.clone(), mask.clone(), 0, i) for i in range(batch)]
    yield bench.compare(
        KIND,
        f"collating {batch} images {side}x{side}",
        Form("our collate", lambda: collate(samples)),
        Form("default_collate", lambda: default_collate(samples)),
        Sense.COST,
        least=LEAST,
        on_cpu=True,
    )
