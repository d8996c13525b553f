"""Images of earlier steps, chosen by a policy: their positions are kept, the images stay in the data set."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from densecl.seeding import generator
from densecl.strategies.base import Strategy
from densecl.strategies.tools.pseudo_labels import sure_labels
from densecl.streams.scenario import Experience

Policy = Literal["shares", "random", "balanced", "greedy"]
Key = tuple[int, int]  # step, and position in the step's list of images
CERTAIN = {"balanced": 0.9, "greedy": 0.7}  # probability from which a label of the teacher counts in the choice


class Memory:
    """At most `size` images, chosen after each step; every choice derives from the run's seed and the step.

    shares: each label has an equal share, of images of the step that brought it; an image may be in several.
    random: a uniform sample of the images of all steps so far.
    balanced: labels take one image each in turn, out of the memory and the step's images (DKD-M).
    greedy: each image of the step goes to its least stored label; when there are too many, one of the most stored
    label is dropped (MiB-AugM).

    In the last two, labels of an image are those of its step, and those that the teacher is sure of in its background.

    Attributes:
        stored: label -> images. of: image -> its labels, where the policy asks for them.
    """

    def __init__(self, size: int, policy: Policy = "shares"):
        self.size, self.policy = size, policy
        self.stored: dict[int, list[Key]] = {}
        self.of: dict[Key, list[int]] = {}

    @property
    def keys(self) -> list[Key]:
        """The images, each once."""
        return sorted({key for keys in self.stored.values() for key in keys})

    def update(self, strategy: Strategy, experience: Experience) -> None:
        """Choose anew, after a step."""
        rng, keys = generator(strategy.seed, "memory", experience.step), self.keys
        own = [(experience.step, position) for position in range(len(experience.presence))]
        if self.policy == "shares":
            self._share(strategy, experience, rng)
        elif self.policy == "random":  # each image has a number of its own for ever; the smallest stay
            steps = strategy.scenario.experiences[: experience.step + 1]
            numbers = [generator(strategy.seed, "memory", e.step).random(len(e.presence)) for e in steps]
            self.stored = {0: sorted([*keys, *own], key=lambda key: numbers[key[0]][key[1]])[: self.size]}
        else:
            sure = sure_labels(strategy, experience, CERTAIN[self.policy])
            for key, present in zip(own, experience.presence[:, :255], strict=True):
                labels = {*np.flatnonzero(present).tolist(), *sure.get(key[1], ())} - {0}
                self.of[key] = sorted(labels)
            if self.policy == "balanced":
                self._take_turns([*keys, *own], rng)
            else:
                self._add_greedily([own[i] for i in rng.permutation(len(own))], rng)
            self.of = {key: self.of[key] for key in self.keys}

    def _share(self, strategy: Strategy, experience: Experience, rng: np.random.Generator) -> None:
        """Give each label an equal share."""
        step = experience.step
        groups = {label: np.flatnonzero(experience.presence[:, label]) for label in experience.new_classes}
        if strategy.stream.by_task or not groups:  # another task or domain: its images are a share of their own
            groups = {-step: np.arange(len(experience.presence))}
        for label, positions in groups.items():
            self.stored[label] = [(step, int(position)) for position in rng.permutation(positions)]
        share = max(1, self.size // len(self.stored))
        first = list(self.stored.items())[: self.size]  # a memory smaller than the labels holds the first ones
        self.stored = {label: keys[:share] for label, keys in first}

    def _take_turns(self, candidates: list[Key], rng: np.random.Generator) -> None:
        """Let the labels take one image each in turn, until the memory is full or none is left."""
        order = [candidates[i] for i in rng.permutation(len(candidates))]
        labels = rng.permutation(sorted({label for key in order for label in self.of[key]})).tolist()
        waiting = {label: [key for key in order if label in self.of[key]] for label in labels}
        self.stored = {label: [] for label in labels}
        taken: set[Key] = set()
        while len(taken) < self.size and any(waiting.values()):
            for label, queue in waiting.items():
                while queue and queue[-1] in taken:
                    queue.pop()
                if queue and len(taken) < self.size:
                    self.stored[label].append(queue.pop())
                    taken.add(self.stored[label][-1])

    def _add_greedily(self, candidates: list[Key], rng: np.random.Generator) -> None:
        """Give each image to its least stored label, and drop one of the most stored where there are too many."""
        for key in (key for key in candidates if self.of[key]):
            label = min(self.of[key], key=lambda label: (len(self.stored.get(label, ())), label))
            self.stored.setdefault(label, []).append(key)
            if sum(map(len, self.stored.values())) > self.size:
                fullest = max(self.stored.values(), key=len)
                fullest.pop(int(rng.integers(len(fullest))))

    def stored_bytes(self, strategy: Strategy) -> int:
        """Bytes of the image and mask files."""
        samples, size = strategy.scenario.training, 0
        for step, position in self.keys:
            index, reader = int(samples.steps[step].indices[position]), samples.readers[step]
            size += sum(Path(files[index]).stat().st_size for files in (reader.image_files, reader.mask_files))
        return size

    def state_dict(self) -> dict[str, Any]:
        """The stored images by class, and their labels."""
        labels = [[*key, *labels] for key, labels in self.of.items()]
        return {"stored": {str(label): keys for label, keys in self.stored.items()}, "labels": labels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.stored = {int(label): [tuple(key) for key in keys] for label, keys in state["stored"].items()}
        self.of = {(step, position): labels for step, position, *labels in state["labels"]}
