"""Settings of the synthesis of images, and the classes they shall show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from densecl.errors import SettingError
from densecl.seeding import generator

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


@dataclass(eq=False)
class Synthesis:
    """Weights and schedule of DeepInversion (Yin et al., CVPR 2020), on pooled logits of dense networks."""

    iterations: Count = 150  # of each batch
    batch: Count = 60  # images optimised together, whose common statistics are matched
    lr: Annotated[float, Field(gt=0)] = 0.2  # of Adam; warm-up, then cosine to 0, anew at each resolution
    warmup: Whole = 30  # iterations of linear warm-up
    schedule: Literal["product", "sequence"] = "product"  # warm-up times cosine, or the cosine begins where it ends
    betas: tuple[Decay, Decay] = (0.5, 0.9)  # of Adam
    coarse: Share = 0.0  # share of the iterations, the first ones, on images halved by averaging
    clip: bool = True  # to the range of normalised pixels, after each iteration
    clip_start: bool = True  # the noise at the start too, where `clip` is on
    init: Weight = 0.5  # standard deviation of the noise at the start, normalised
    objective: Literal["softmax", "foreground", "sigmoid"] = "softmax"  # over all, classes alone, or each by itself
    classification: Weight = 1.0  # weight of the class loss
    r0: Weight = 0.0  # of LSE-LBA pooling, as beta
    beta: float = 0.0
    random_beta: bool = False  # beta is drawn from 0..1 anew in each iteration (the code of Di Salvo et al.)
    stride: Count = 8  # of the maps that are pooled
    statistics: Weight = 0.1  # weight of BatchNorm matching
    first: Weight = 10.0  # times which the first layers count
    tv_l1: Weight = 0.0  # weights of the priors
    tv_l2: Weight = 0.05
    l2: Weight = 1e-5
    jitter: Whole = 2  # pixels by which the images are rolled, at most
    flip: bool = True  # mirror them at random
    competition: Weight = 0.0  # weight of 1 - divergence against a student
    divergence: Literal["js", "legacy"] = "js"  # Jensen-Shannon, or the form of the published code
    compete: Literal["places", "pooled"] = "places"  # the logits that are compared: of each place, or pooled


# The released code of DeepInversion: the defaults of its command line and its setting 0, which is 2,000 iterations on
# halved images, then 1,000
PUBLISHED: dict[str, Any] = {
    "iterations": 3000,
    "coarse": 2 / 3,
    "batch": 64,
    "lr": 0.2,
    "warmup": 100,
    "schedule": "sequence",
    "betas": (0.5, 0.9),
    "clip": True,
    "clip_start": False,
    "init": 1.0,
    "statistics": 0.05,
    "first": 10.0,
    "tv_l1": 0.0,
    "tv_l2": 1e-4,
    "l2": 1e-5,
    "jitter": 30,
    "flip": True,
    "divergence": "legacy",
    "compete": "pooled",
}


@dataclass
class Inversion(Synthesis):
    """The settings of the synthesis, and the precision of its forward passes."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

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
