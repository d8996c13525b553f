"""The time that training waits for its loader, and the parts of loading beside bare ones."""

import gc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from bench.harness import SMALL_BACKBONE, train
from bench.passes import passes, total
from bench.rows import COST, SPEED, WAITING, Bench, Form, Goal, Row
from bench.trees import USUAL, Drawn, find_tree
from densecl.data.dataset import DenseDataset
from densecl.runner.build import build_loop, build_network, build_scenario
from densecl.runner.plan import make_plan
from densecl.streams.protocol import lookup_table
from densecl.streams.samples import LoadedSample, remap
from densecl.training.loader import EpochBatches, collate, make_loader

SETTINGS = ("training.crop=128", "evaluation.size=128", "training.epochs=1")
SMALL = {
    "workers": 1,
    "drawn": Drawn(20, 2, (32, 48)),
    "mask": 32,
    "backbone": SMALL_BACKBONE,
    "settings": ("training.crop=32", "evaluation.size=32", "training.iterations=3", "training.batch=4"),
}
LEAST = 0.02  # seconds a turn of what takes microseconds


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
    backbone: str = "bisenet(encoder=resnet18, weights=none)",
    mask: int = 512,
) -> Iterator[Row]:
    """Waiting in step 0 of `voc15-5`; loading alone; and on made labels and images, remap and collate."""
    tree = find_tree(bench.data, drawn)
    with TemporaryDirectory() as folder:
        options = {"backbone": backbone, "assignments": settings, "data": tree.root, "workers": workers}
        plan = make_plan("voc15-5", "finetune", **options, device=str(bench.device), output=Path(folder))
        scenario, _ = build_scenario(plan)
        indices, batch = scenario.experiences[0].images.indices, plan.settings.training.batch
        turns = []
        for _ in range(bench.repeats):
            with passes() as epochs:
                train(build_loop(plan, scenario, build_network(plan.settings), workers))
            gc.collect()  # of a strategy in a circle: workers forked off later would collect iterators of ended ones
            turns.append([total(part) for part in zip(*epochs, strict=True)])
        names = ("waiting, but for the first batch", f"training {plan.settings.backbone}")
        what = f"waiting for batches, {len(indices)} images, {workers} workers"
        yield Row(what, names, turns, WAITING, goal=Goal(ratio=0.05), note=tree.note)

        def ours() -> None:
            for _ in make_loader(scenario.training, EpochBatches(len(indices), batch, 0, 0), workers, pin=False):
                pass

        def bare() -> None:
            for _ in DataLoader(BareDecode(plan.train, indices), batch_size=batch, num_workers=workers):
                pass

        what = f"loading alone, {len(indices)} images, {workers} workers"
        forms = Form("decode, augment, label, collate", ours), Form("bare decode", bare)
        yield bench.compare(what, *forms, COST, note=tree.note)
    yield from _parts(bench, mask, batch)


def _parts(bench: Bench, side: int, batch: int) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 21, (16, 16), generator=generator, dtype=torch.uint8)
    mask = coarse.repeat_interleave(side // 16, 0).repeat_interleave(side // 16, 1)
    mapping = {label: label for label in range(16, 21)}  # the labels of a second step
    table = torch.from_numpy(lookup_table(mapping, 0))
    yield bench.compare(
        f"labels of a step, a mask of {side}x{side}",
        Form("look-up table", lambda: remap(mask, table)),
        Form("a pass for each label", lambda: textbook_remap(mask, {**mapping, 255: 255})),
        SPEED,
        least=LEAST,
        goal=Goal(seconds=0.5e-3),
    )
    image = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
    samples = [LoadedSample(image.clone(), mask.clone(), 0, i) for i in range(batch)]
    what = f"collating {batch} images {side}x{side}"
    forms = Form("our collate", lambda: collate(samples)), Form("default_collate", lambda: default_collate(samples))
    yield bench.compare(what, *forms, COST, least=LEAST)
