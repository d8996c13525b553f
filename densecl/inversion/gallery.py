"""A picture of synthetic images: the best one of each class above the labels that the teacher gives it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densecl.files import atomic_path
from densecl.inversion.quality import predictions
from densecl.models.network import Network
from densecl.palette import palette

GAP, LEAST, COLUMNS = 2, 96, 10  # pixels between images, their least side, images a row


@torch.no_grad()
def best_of_each_class(
    images: Tensor, targets: Tensor, teacher: Network, mean: Tensor, std: Tensor, device: torch.device | str = "cpu"
) -> tuple[list[int], list[int], Tensor]:
    """The wanted classes, the positions of their best images, and the teacher's labels (n, H, W) of those.

    Best is the highest probability of the class, mean over pixels.
    """
    scores, labels = [], []
    for probabilities in predictions(teacher, images, mean, std, device):
        scores.append(probabilities.mean((2, 3)).cpu())
        labels.append(probabilities.argmax(1).cpu())
    score = torch.cat(scores).masked_fill(~targets, -1)
    classes = targets.any(0).nonzero().flatten().tolist()
    best = [int(score[:, label].argmax()) for label in classes]
    return classes, best, torch.cat(labels)[best]


def write_gallery(path: Path, images: Tensor, best: list[int], labels: Tensor) -> None:
    """Write the best image of each class, and below it the teacher's labels in VOC's colours, as a PNG."""
    colours = np.frombuffer(palette(), np.uint8).reshape(256, 3)
    pairs = zip(images[best].permute(0, 2, 3, 1).numpy(), colours[labels.numpy()], strict=True)
    scale = max(1, -(-LEAST // images.shape[-1]))
    tiles = [np.concatenate(pair).repeat(scale, 0).repeat(scale, 1) for pair in pairs]  # (2 H, W, 3) each
    height, width = (side + GAP for side in tiles[0].shape[:2])
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * height + GAP, columns * width + GAP, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = GAP + number // columns * height, GAP + number % columns * width
        canvas[top : top + height - GAP, left : left + width - GAP] = tile
    with atomic_path(path) as temporary:
        Image.fromarray(canvas).save(temporary, format="PNG")
