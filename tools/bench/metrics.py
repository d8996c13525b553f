"""The confusion matrix against a loop over pixels and against torchmetrics."""

from collections.abc import Iterator
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import goals
from bench.rows import Bench, Missing, Row, Sense
from bench.timing import Form
from densecl.metrics import ConfusionMatrix

SMALL = {"shape": (2, 32, 32), "piece": 8}
KIND = "metrics"
VOID = 255
LEAST = 0.02  # seconds a turn: a matrix takes milliseconds


def pixel_loop(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """The matrix (classes, classes) as its definition reads: one pixel of the label maps (H, W) after another."""
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            if target[y, x] != VOID:
                matrix[target[y, x], prediction[y, x]] += 1
    return matrix


def list_loop(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """The same over lists of numbers: as fast as a loop over pixels gets in Python."""
    rows = [[0] * classes for _ in range(classes)]
    for true, predicted in zip(target.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if true != VOID:
            rows[true][predicted] += 1
    return torch.tensor(rows)


def label_maps(shape: tuple[int, int, int], classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Predictions and targets (B, H, W) int64 with areas of one label as real ones have, and rows of void."""
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    maps = []
    for _ in range(2):
        coarse = torch.randint(0, classes, (batch, 1, 16, 16), generator=generator).float()
        maps.append(F.interpolate(coarse, size=(height, width))[:, 0].long())
    maps[1][:, ::32] = VOID
    return maps[0], maps[1]


def measure(
    bench: Bench, shape: tuple[int, int, int] = (8, 512, 512), classes: int = 21, piece: int = 48, seed: int = 0
) -> Iterator[Row | Missing]:
    """Count the pairs of labels of a batch.

    Args:
        bench: how.
        shape: (B, H, W) of predictions and targets, int64.
        classes: labels; void is 255.
        piece: side of the square that the loops are given; their time is multiplied by the pixels it lacks.
        seed: of the label maps.
    """
    maps = label_maps(shape, classes, seed)
    prediction, target = (labels.to(bench.device) for labels in maps)
    size = "x".join(map(str, shape))
    what = f"confusion matrix, {size}, {classes} classes"

    def ours() -> None:
        ConfusionMatrix(classes, VOID).update(prediction, target)

    small = [labels[0, :piece, :piece] for labels in maps]
    scale = target.numel() / small[0].numel()
    note = f"the loop was given {piece}x{piece} pixels, and its time multiplied by {scale:.0f}"
    loops = ((pixel_loop, "loop over pixels of tensors", goals.PIXEL_LOOP), (list_loop, "loop over lists", None))
    for loop, name, goal in loops:
        reference = Form(name, lambda loop=loop: loop(*small, classes), scale=scale)
        counted = Form("bincount of pairs", ours)
        yield bench.compare(KIND, what, counted, reference, Sense.SPEED, least=LEAST, goal=goal, note=note)
    if find_spec("torchmetrics") is None:
        yield Missing(KIND, "torchmetrics is not installed: no comparison with it (pip install torchmetrics)")
        return
    from torchmetrics.classification import MulticlassConfusionMatrix

    for checks, goal in ((True, None), (False, goals.TORCHMETRICS)):
        name = "torchmetrics" if checks else "torchmetrics, validate_args=False"
        theirs = MulticlassConfusionMatrix(classes, ignore_index=VOID, validate_args=checks).to(bench.device)
        reference = Form(name, lambda theirs=theirs: theirs.update(prediction, target))
        counted = Form("bincount of pairs", ours)
        yield bench.compare(KIND, what, counted, reference, Sense.SPEED, least=LEAST, goal=goal)
