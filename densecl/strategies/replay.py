"""Replay of real images of earlier steps, with the labels they had then."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from densecl.models.network import Output
from densecl.seeding import generator
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch
from densecl.training.loader import collate


class Replay(Plugin):
    """Stores positions of images, balanced over the classes learnt so far; a share of them joins every batch.

    A replayed sample carries its own step's labels and says so in `Batch.step`. On a sequence of tasks every earlier
    task has an equal share of the memory, and of each iteration's replayed images, which pass the network apart from
    the batch; their losses, each of its own task, are averaged.
    """

    streams = frozenset({"classes", "tasks"})
    first_step = "shared"
    memory: Annotated[int, Field(ge=1)] = 200  # images in all
    ratio: Annotated[float, Field(ge=0)] = 0.5  # replayed images for each image of the step

    def __init__(self, **values: object):
        super().__init__(**values)
        self._stored: dict[int, list[tuple[int, int]]] = {}  # label -> (step, position), most wanted first

    @property
    def keys(self) -> list[tuple[int, int]]:
        """The (step, position) pairs in memory, each once."""
        return sorted({key for keys in self._stored.values() for key in keys})

    def extend_keys(self, strategy: Strategy, keys: list[SampleKey], epoch: int, iteration: int) -> list[SampleKey]:
        """Append `ratio` replayed samples for each sample, drawn from the memory of earlier steps."""
        if strategy.stream.by_task:  # they may be of other sizes and need another head: see `loss`
            return keys
        stored = [key for key in self.keys if key[0] < keys[0].step]
        count = round(self.ratio * len(keys))
        if not stored or not count:
            return keys
        rng = generator(strategy.seed, "replay", keys[0].step, epoch, iteration)
        chosen = rng.choice(len(stored), size=count, replace=count > len(stored))
        return keys + [SampleKey(stored[i][0], stored[i][1], keys[0].step, epoch) for i in chosen]

    def loss(self, strategy: Strategy, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor | None:
        """On a sequence of tasks the mean of the earlier tasks' losses on replayed images."""
        if not strategy.stream.by_task or strategy.step == 0:
            return None
        count = max(2, round(self.ratio * strategy.settings.batch / strategy.step))
        rng = generator(strategy.seed, "replay", strategy.step, strategy.epoch, strategy.iterations)
        losses = []
        for source, task in enumerate(strategy.stream.tasks[: strategy.step]):
            stored = [position for step, position in self.keys if step == source]
            chosen = rng.choice(len(stored), size=count, replace=count > len(stored))
            keys = [SampleKey(source, stored[i], strategy.step, strategy.epoch) for i in chosen]
            loaded = collate([strategy.scenario.training[key] for key in keys])
            replayed = strategy.loop.prepared(loaded.to(strategy.device), task)
            with strategy.loop.precision.autocast():
                maps = strategy.network(replayed.image)
                logits = strategy.network.logits_of(task.name, maps, replayed.image).float()
            losses.append(task.loss(logits, replayed))
        return torch.stack(losses).mean() if self.ratio else None

    def after_step(self, strategy: Strategy, experience: Experience) -> None:
        """Store images of the new classes and drop some of the old, so that each has an equal share."""
        rng, step = generator(strategy.seed, "memory", experience.step), experience.step
        groups = {label: np.flatnonzero(experience.presence[:, label]) for label in experience.new_classes}
        if strategy.stream.by_task or not groups:  # another task or domain: its images are a share of their own
            groups = {-step: np.arange(len(experience.presence))}
        for label, positions in groups.items():
            self._stored[label] = [(step, int(position)) for position in rng.permutation(positions)]
        share = max(1, self.memory // len(self._stored))
        first = list(self._stored.items())[: self.memory]  # a memory smaller than the classes holds the first ones
        self._stored = {label: keys[:share] for label, keys in first}

    def stored_bytes(self, strategy: Strategy) -> int:
        """Bytes of the image and mask files in memory."""
        samples, size = strategy.scenario.training, 0
        for step, position in self.keys:
            index, reader = int(samples.steps[step].indices[position]), samples.readers[step]
            size += sum(Path(files[index]).stat().st_size for files in (reader.image_files, reader.mask_files))
        return size

    def state_dict(self) -> dict[str, object]:
        """The memory."""
        return {"stored": {str(label): keys for label, keys in self._stored.items()}}

    def load_state_dict(self, state: dict) -> None:
        """Restore the memory."""
        self._stored = {int(label): [tuple(key) for key in keys] for label, keys in state["stored"].items()}
