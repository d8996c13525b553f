"""Replay of real images of earlier steps, with the labels they had then."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from densecl.errors import SettingError
from densecl.models.network import Output
from densecl.seeding import generator
from densecl.strategies.base import Plugin, Strategy
from densecl.strategies.mib import MiB
from densecl.strategies.tools.memory import Memory, Policy
from densecl.streams.samples import SampleKey
from densecl.streams.scenario import Experience
from densecl.training.batch import Batch
from densecl.training.loader import collate


class Replay(Plugin):
    """Stores positions of images; some of them are in every batch.

    A replayed sample carries its own step's labels and says so in `Batch.step`; to MiB its background may be any class
    that its step did not label. On a sequence of tasks every earlier task has an equal share of the memory, and of each
    iteration's replayed images, which pass the network apart from the batch; their losses, each of its own task, are
    averaged.
    """

    streams = frozenset({"classes", "tasks"})
    first_step = "shared"
    memory: Annotated[int, Field(ge=1)] = 200  # images in all
    ratio: Annotated[float, Field(ge=0)] = 0.5  # replayed images for each image of the step, where they are appended
    policy: Policy = "shares"  # which images are kept; see `densecl.strategies.tools.memory`
    batch: Literal["appended", "half", "joined"] = "appended"  # to each batch; as half of it; to the images of the step
    labels: Literal["stored", "published"] = "stored"  # of their own step; or as released codes have them, which leaks
    replay_loss: Literal["strategy", "augmented"] = "strategy"  # augmented (mib): their background may be a new class

    def __init__(self, **values: object):
        super().__init__(**values)
        self.kept = Memory(self.memory, self.policy)

    def configure(self, strategy: Strategy) -> None:
        """Refuse what the strategy or a sequence of tasks cannot have."""
        if strategy.stream.by_task:
            for name in ("policy", "batch", "labels"):
                if getattr(self, name) != getattr(type(self), name):
                    message = f"replay({name}={getattr(self, name)}) needs one head for all steps"
                    raise SettingError(message, f"leave {name} out where each task has a head of its own")
        if isinstance(strategy, MiB):
            unlabelled = "unlabelled" if self.labels == "stored" else "nothing"
            strategy.hides = "new" if self.replay_loss == "augmented" else unlabelled
        elif self.replay_loss == "augmented":
            name = type(strategy).__name__.lower()
            raise SettingError(f"replay(replay_loss=augmented) is a loss of mib, not of {name}", "leave it out")

    def extend_keys(self, strategy: Strategy, keys: list[SampleKey], epoch: int, iteration: int) -> list[SampleKey]:
        """Bring samples of earlier steps into a batch."""
        if strategy.stream.by_task:  # they may be of other sizes and need another head: see `loss`
            return keys
        step = keys[0].step
        stored = [key for key in self.kept.keys if key[0] < step]
        labels = "own" if self.labels == "stored" else strategy.published_labels
        replayed = [SampleKey(*key, step, epoch, labels=labels) for key in stored]
        if self.batch == "joined" and stored:
            n = len(strategy.scenario.experiences[step].images.indices)
            order = generator(strategy.seed, "joined", step, epoch).permutation(n + len(stored))
            first = iteration * strategy.settings.batch
            drawn = order[first : first + len(keys)].tolist()  # an epoch is as long as without the stored images
            return [SampleKey(step, i, step, epoch) if i < n else replayed[i - n] for i in drawn]
        count = len(keys) // 2 if self.batch == "half" else round(self.ratio * len(keys))
        if not stored or not count:
            return keys
        rng = generator(strategy.seed, "replay", step, epoch, iteration)
        chosen = rng.choice(len(stored), size=count, replace=count > len(stored))
        own = keys[:-count] if self.batch == "half" else keys
        return own + [replayed[i] for i in chosen]

    def loss(self, strategy: Strategy, output: Output, batch: Batch, teacher_output: Output | None) -> Tensor | None:
        """On a sequence of tasks the mean of the earlier tasks' losses on replayed images."""
        if not strategy.stream.by_task or strategy.step == 0:
            return None
        count = max(2, round(self.ratio * strategy.settings.batch / strategy.step))
        rng = generator(strategy.seed, "replay", strategy.step, strategy.epoch, strategy.iterations)
        losses = []
        for source, task in enumerate(strategy.stream.tasks[: strategy.step]):
            stored = [position for step, position in self.kept.keys if step == source]
            chosen = rng.choice(len(stored), size=count, replace=count > len(stored))
            keys = [SampleKey(source, stored[i], strategy.step, strategy.epoch) for i in chosen]
            loaded = collate([strategy.scenario.training[key] for key in keys])
            replayed = strategy.loop.prepared(loaded.to(strategy.device), task)
            with strategy.loop.precision.autocast():
                maps = strategy.network(replayed.image, None)
                logits = strategy.network.logits_of(task.name, maps, replayed.image).float()
            losses.append(task.loss(logits, replayed))
        return torch.stack(losses).mean() if self.ratio else None

    def after_step(self, strategy: Strategy, experience: Experience) -> None:
        """Choose what is kept."""
        self.kept.update(strategy, experience)

    def stored_bytes(self, strategy: Strategy) -> int:
        """Bytes of the image and mask files in memory."""
        return self.kept.stored_bytes(strategy)

    def notes(self, strategy: Strategy) -> dict[str, Any]:
        """Say which classes the labels leak, if they do."""
        shown = {"current": "classes of the step in training", "all": "classes of all steps so far"}
        if self.labels == "stored":
            return {}
        return {"leak": f"replayed images are labelled with {shown[strategy.published_labels]}, as published"}

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return self.kept.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the memory."""
        self.kept.load_state_dict(state)
