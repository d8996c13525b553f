"""Tiny images, streams and networks in memory, on which methods are tried in seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from densecl.data.dataset import Sample
from densecl.models.network import Network
from densecl.runner.methods import Method, build_plugins
from densecl.settings.backbone import build_backbone
from densecl.settings.recipe import LaterSettings, TrainingSettings
from densecl.streams.scenario import Scenario, TaskSource, class_incremental, task_sequence
from densecl.tasks import Segmentation
from densecl.tasks.colorization import Colorization
from densecl.training.loop import Loop

SIZE, IMAGES = 32, 12
TRAINING = TrainingSettings(
    epochs=2, batch=6, optimizer="adamw", lr=1e-3, later=LaterSettings(lr=1e-3), augmentation="flip", crop="full"
)
BISENET = {"encoder": "mini", "encoder_widths": (8, 8, 12, 16), "weights": "none", "width": 16}
BISENET |= {"spatial": (8, 8), "spatial_width": 8}


class TinyImages:
    """Squares of four colours on noise with void borders, in memory: a reader that needs no files."""

    name, split, has_background, has_masks = "tiny", "train", True, True
    class_names = ("red", "green", "blue", "yellow")
    root = Path()

    def __init__(self, n: int, seed: int, size: int = SIZE):
        rng = np.random.default_rng(seed)
        colours = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]])
        self.ids = tuple(f"tiny{seed}-{i}" for i in range(n))
        self.image_files = self.mask_files = (__file__,) * n  # files that exist
        self.masks = np.zeros((n, size, size), dtype=np.uint8)
        for i, mask in enumerate(self.masks):
            for part, label in enumerate(1 + (i + np.array([0, rng.integers(1, 4)])) % 4):
                y, x = rng.integers(1, size // 2), 1 + part * size // 2
                mask[y - 1 : y + size // 3 + 1, x - 1 : x + size // 3 + 1] = 255
                mask[y : y + size // 3, x : x + size // 3] = label
        noise = rng.integers(0, 50, (n, size, size, 3))
        images = colours[np.where(self.masks == 255, 0, self.masks)] + noise
        self.images = np.ascontiguousarray(images.astype(np.uint8).transpose(0, 3, 1, 2))

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Sample:
        """The sample at a position."""
        return Sample(torch.from_numpy(self.images[index]), torch.from_numpy(self.masks[index]))

    def read_extra(self, index: int) -> dict[str, np.ndarray]:
        """No further maps."""
        return {}

    def read_mask(self, index: int) -> np.ndarray:
        """The mask at a position."""
        return self.masks[index]

    def presence(self) -> np.ndarray:
        """(n, 256) bool: the ids that each mask holds."""
        return np.stack([np.bincount(mask.reshape(-1), minlength=256) > 0 for mask in self.masks])


def tiny_scenario(
    *, joint: bool = False, by_task: bool = False, size: int = SIZE, images: int = IMAGES, seed: int = 0
) -> Scenario:
    """Four classes in three steps: {1, 2}, {3}, {4}."""
    train, test = TinyImages(images, seed=1, size=size), TinyImages(8, seed=2, size=size)
    return class_incremental(
        train,  # type: ignore[arg-type]
        test,  # type: ignore[arg-type]
        ((1, 2), (3,), (4,)),
        joint=joint,
        by_task=by_task,
        seed=seed,
        presence=train.presence(),
        test_presence=test.presence(),
    )


def tiny_sequence(*, size: int = SIZE, seed: int = 0) -> Scenario:
    """Three tasks: four colours, colours from luminance, four colours in other images."""
    readers = [(TinyImages(n, 2 * k + 1, size), TinyImages(8, 2 * k + 2, size)) for k, n in enumerate((24, 20, 18))]
    tasks = (Segmentation("squares", classes=4), Colorization("colours"), Segmentation("again", classes=4))
    sources = [TaskSource(task, *pair) for task, pair in zip(tasks, readers, strict=True)]  # type: ignore[arg-type]
    return task_sequence(sources, seed=seed)


def tiny_stream(method: Method, kind: str = "") -> Scenario:
    """A stream that a method can learn: of classes where it can learn those, unless another `kind` is named."""
    streams = method.strategy.cls.streams  # type: ignore[attr-defined]
    kind = kind or ("classes" if "classes" in streams else "tasks")
    return tiny_sequence() if kind == "tasks" else tiny_scenario(joint=method.joint, by_task=method.told)


def tiny_backbone(method: Method) -> Network:
    """A network that a method can use."""
    own = method.strategy.backbone("tiny")
    if own is not None and own.startswith("resblock"):
        return tiny_network("resblock", width=4, blocks=1, norm="batch", head=1)
    if any("attention" in getattr(part.cls, "needs", ()) for part in method.parts):
        sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": SIZE}
        options = {f"encoder.{key}": value for key, value in sizes.items()}
        return tiny_network(
            "vit", encoder="vit_tiny_patch16_224", weights="none", width=8, maps=2, dropout=0.0, **options
        )
    return tiny_network()


def tiny_network(backbone: str = "bisenet", **values: Any) -> Network:
    """A network small enough to train in milliseconds."""
    if backbone == "bisenet" and not values:
        values = BISENET
    torch.manual_seed(0)
    return Network(build_backbone(backbone, values))


def tiny_loop(
    method: Method,
    scenario: Scenario,
    network: Network | None = None,
    training: TrainingSettings = TRAINING,
    seed: int = 0,
    **options: Any,
) -> Loop:
    """The loop of a method with its plugins on the tiny stream."""
    return Loop(
        method.strategy.cls(**method.strategy.resolved()),
        network or tiny_backbone(method),
        scenario.stream,
        scenario.normalisation,
        training,
        scenario=scenario,
        seed=seed,
        plugins=build_plugins(method),
        **options,
    )
