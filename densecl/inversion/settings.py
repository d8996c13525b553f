"""What decides the synthetic images, besides the network they are made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from densecl.errors import SettingError
from densecl.seeding import generator


@dataclass(frozen=True)
class Inversion:
    """Weights and schedule of DeepInversion (Yin et al., CVPR 2020), on pooled logits of dense networks.

    Attributes:
        iterations: of each batch. batch: images optimised together, whose common statistics are matched.
        lr, warmup, betas: of Adam; linear warm-up, then cosine to 0, anew at each resolution.
        coarse: share of the iterations on images halved by averaging, which come first.
        clip: keep the images within what normalised pixels can be.
        init: standard deviation of the noise they start from, normalised.
        classification: weight of the class loss. r0, beta: of LSE-LBA pooling. stride: of the maps that are pooled.
        objective: softmax over all outputs, over the classes without background, or a sigmoid for each class.
        statistics: weight of BatchNorm matching. first: how much more the first layers count.
        tv_l1, tv_l2, l2: weights of the priors.
        jitter: pixels by which the images are rolled, at most. flip: whether they are mirrored at random.
        competition: weight of 1 - JS against a student. divergence: true Jensen-Shannon, or the published code's form.
        precision: of forward passes.
    """

    iterations: int = 150
    batch: int = 60
    lr: float = 0.2
    warmup: int = 30
    betas: tuple[float, float] = (0.5, 0.9)
    coarse: float = 0.0
    clip: bool = True
    init: float = 0.5
    classification: float = 1.0
    r0: float = 0.0
    beta: float = 0.0
    stride: int = 8
    objective: Literal["softmax", "foreground", "sigmoid"] = "softmax"
    statistics: float = 0.1
    first: float = 10.0
    tv_l1: float = 0.0
    tv_l2: float = 0.05
    l2: float = 1e-5
    jitter: int = 2
    flip: bool = True
    competition: float = 0.0
    divergence: Literal["js", "legacy"] = "js"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def stages(self) -> list[tuple[int, int]]:
        """(factor by which images are shrunk, iterations) of each resolution; the last is the full one."""
        coarse = min(round(self.coarse * self.iterations), self.iterations - 1)
        return [*([(2, coarse)] if coarse else []), (1, self.iterations - coarse)]


def choose_targets(labels: Sequence[int], images: int, n_outputs: int, seed: int, per_image: int = 1) -> Tensor:
    """Which classes each image shall show: every class is wanted first in `images` images, in turn.

    Args:
        labels: of the classes; never 0, which is background.
        images: of each class.
        n_outputs: of the teacher.
        seed: of the draw of further classes.
        per_image: classes of an image, at most; their number is drawn evenly.

    Returns:
        (len(labels) * images, n_outputs) bool.

    Raises:
        SettingError: no images, no classes, or a class the teacher does not know.
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
