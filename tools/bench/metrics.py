"""The confusion matrix against loops over pixels and against torchmetrics."""

from collections.abc import Iterator
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.rows import SPEED, Bench, Form, Goal, Missing, Row
from densecl.metrics import ConfusionMatrix

SMALL = {"shape": (2, 32, 32), "piece": 8}
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
    coarse = torch.randint(0, classes, (2, shape[0], 16, 16), generator=generator).float()
    prediction, target = F.interpolate(coarse, size=shape[1:]).long()
    target[:, ::32] = VOID
    return prediction, target


def measure(
    bench: Bench, shape: tuple[int, int, int] = (8, 512, 512), classes: int = 21, piece: int = 48
) -> Iterator[Row | Missing]:
    """Count the pairs of labels of a batch (B, H, W).

    The loops are given a square of side `piece`; their time is multiplied by the pixels it lacks.
    """
    maps = label_maps(shape, classes, seed=0)
    prediction, target = (labels.to(bench.device) for labels in maps)
    what = f"confusion matrix, {'x'.join(map(str, shape))}, {classes} classes"
    ours = Form("bincount of pairs", lambda: ConfusionMatrix(classes, VOID).update(prediction, target))
    small = [labels[0, :piece, :piece] for labels in maps]
    scale = target.numel() / small[0].numel()
    note = f"the loop was given {piece}x{piece} pixels, and its time multiplied by {scale:.0f}"
    loops = ((pixel_loop, "loop over pixels of tensors", Goal(ratio=500)), (list_loop, "loop over lists", None))
    for loop, name, goal in loops:
        reference = Form(name, lambda loop=loop: loop(*small, classes), scale=scale)
        yield bench.compare(what, ours, reference, SPEED, least=LEAST, goal=goal, note=note)
    if find_spec("torchmetrics") is None:
        yield Missing("torchmetrics is not installed: no comparison with it (pip install torchmetrics)")
        return
    from torchmetrics.classification import MulticlassConfusionMatrix

    for checks, goal in ((True, None), (False, Goal(ratio=2))):
        theirs = MulticlassConfusionMatrix(classes, ignore_index=VOID, validate_args=checks).to(bench.device)
        name = "torchmetrics" if checks else "torchmetrics, validate_args=False"
        reference = Form(name, lambda theirs=theirs: theirs.update(prediction, target))
        yield bench.compare(what, ours, reference, SPEED, least=LEAST, goal=goal)
