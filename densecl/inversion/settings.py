"""Settings of the synthesis of images, and the classes they shall show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from densecl.errors import SettingError
from densecl.seeding import generator


@dataclass(frozen=True)
class Inversion:
    """Weights and schedule of DeepInversion (Yin et al., CVPR 2020), on pooled logits of dense networks."""

    iterations: int = 150  # of each batch
    batch: int = 60  # images optimised together, whose common statistics are matched
    lr: float = 0.2  # of Adam; linear warm-up, then cosine to 0, anew at each resolution
    warmup: int = 30
    betas: tuple[float, float] = (0.5, 0.9)
    coarse: float = 0.0  # share of the iterations, the first ones, on images halved by averaging
    clip: bool = True  # to the range of normalised pixels
    init: float = 0.5  # standard deviation of the noise at the start, normalised
    classification: float = 1.0  # weight of the class loss
    r0: float = 0.0  # of LSE-LBA pooling, as beta
    beta: float = 0.0
    stride: int = 8  # of the maps that are pooled
    # softmax over all outputs, over the classes without background, or a sigmoid for each class
    objective: Literal["softmax", "foreground", "sigmoid"] = "softmax"
    statistics: float = 0.1  # weight of BatchNorm matching
    first: float = 10.0  # times which the first layers count
    tv_l1: float = 0.0  # weights of the priors
    tv_l2: float = 0.05
    l2: float = 1e-5
    jitter: int = 2  # pixels by which the images are rolled, at most
    flip: bool = True  # mirror them at random
    competition: float = 0.0  # weight of 1 - divergence against a student
    divergence: Literal["js", "legacy"] = "js"  # Jensen-Shannon, or the form of the published code
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of forward passes

    def stages(self) -> list[tuple[int, int]]:
        """(factor by which images are shrunk, iterations) of each resolution; the last is the full one."""
        coarse = min(round(self.coarse * self.iterations), self.iterations - 1)
        return [*([(2, coarse)] if coarse else []), (1, self.iterations - coarse)]


def choose_targets(labels: Sequence[int], images: int, n_outputs: int, seed: int, per_image: int = 1) -> Tensor:
    """The classes each image shall show, (len(labels) * images, n_outputs) bool.

    Every class comes first in `images` images, in turn; up to `per_image` - 1 further ones are drawn, their number
    evenly.

    Raises:
        SettingError: no images, no classes, or a class (such as 0, background) that is none of the teacher's.
    """
    if images < 1 or per_image < 1:
        raise SettingError(f"{images} synthetic images a class, {per_image} classes an image", "give at least one")
    wrong = [label for label in labels if not 0 < label < n_outputs]
    if wrong or not labels:
        known = f"the teacher knows the classes 1 to {n_outputs - 1}"
        raise SettingError(
            f"there is no image to synthesise of {wrong or 'no class'}: {known}", "name classes it knows"
        )
    targets = torch.zeros(len(labels) * images, n_outputs, dtype=torch.bool)
    rng = generator(seed, "synthetic classes")
    for row, target in enumerate(targets):
        first = labels[row % len(labels)]
        others = [label for label in labels if label != first]
        extra = min(int(rng.integers(per_image)), len(others))
        target[[first, *rng.permutation(others)[:extra].tolist()]] = True
    return targets
